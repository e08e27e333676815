"""Triton kernels compiled for a GPU that is not there, and the instructions that they became."""

# pyright: reportMissingImports=false

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER = GPUTarget("cuda", 90, 32)
_INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)")
SPECIAL = "MUFU"
"""What the instructions of the special function unit begin with."""


@dataclass(frozen=True)
class Loop:
    """The innermost loop of a kernel.

    Attributes:
        instructions: names, in order.
        registers: of a lane.
        stack: bytes of a lane that did not fit into registers.
    """

    instructions: tuple[str, ...]
    registers: int
    stack: int

    @property
    def special(self) -> int:
        """How many go to the special function unit."""
        return sum(name.startswith(SPECIAL) for name in self.instructions)


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], folder: Path) -> Loop:
    """Compiles a kernel for sm_90 and disassembles its loop with what comes with Triton.

    Args:
        kernel: a jitted function.
        types: of its arguments, such as "*fp64" or "i32".
        constants: values of the others.
        folder: for the machine code.
    """
    options = {"enable_fp_fusion": False, "num_warps": constants["BLOCK"] // 32}
    listing, registers, stack = _disassembled(kernel, types, constants, folder, options)
    return Loop(_longest_loop(listing), registers, stack)


def whole(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    folder: Path,
    *,
    warps: int,
    aligned: tuple[str, ...] = (),
) -> Loop:
    """As `compiled`, all instructions of a kernel in place of its loop's; `aligned` arguments divide by 16."""
    places = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    listing, *rest = _disassembled(kernel, types, constants, folder, {"num_warps": warps}, places)
    found = [match[1] for match in map(_INSTRUCTION.match, listing.splitlines()) if match]
    return Loop(tuple(name for name in found if name != "NOP"), *rest)


def _disassembled(
    kernel: Any,
    types: dict[str, str],
    constants: dict[str, Any],
    folder: Path,
    options: dict[str, Any],
    attributes: dict[tuple[int], Any] | None = None,
) -> tuple[str, int, int]:
    """The listing of a kernel's machine code, a lane's registers, and its stack."""
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants, attributes)
    found = triton.compile(source, target=HOPPER, options=options)
    path = folder / "kernel.cubin"
    path.write_bytes(found.asm["cubin"])
    usage = _run("cuobjdump", "-res-usage", path)
    registers, stack = (int(re.findall(rf"{name}:(\d+)", usage)[0]) for name in ("REG", "STACK"))
    return _run("nvdisasm", "-c", path), registers, stack


def _longest_loop(listing: str) -> tuple[str, ...]:
    """The instructions from a label to the branch back to it, where there are most."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: list[tuple[str, ...]] = [()]
    for line in listing.splitlines():
        label = re.match(r"(\.L_x_\d+):", line)
        instruction = _INSTRUCTION.match(line)
        if label:
            labels[label[1]] = len(instructions)
        elif instruction:
            instructions.append(instruction[1])
            back = re.search(r"`\((\.L_x_\d+)\)", instruction[2])
            if instruction[1].startswith("BRA") and back and back[1] in labels:
                loops.append(tuple(instructions[labels[back[1]] :]))
    return max(loops, key=len)


def _run(program: str, *arguments: Any) -> str:
    tool = Path(str(triton.__file__)).parent / "backends/nvidia/bin" / program
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout
