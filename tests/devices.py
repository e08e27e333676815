"""What a GPU would wait for, or take from the host, found where there is no GPU: on the device `meta`.

Its tensors have no values, so reading one raises; and a mode sees every operation, so one that makes a tensor elsewhere
is seen too. Where a list of the host's becomes a tensor is seen on a CPU, as whose own device it counts then.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
HOST = {  # operations by which values or shapes come from the device or to it
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::equal",
    "aten::lift_fresh",
}


class HostNeeded(RuntimeError):
    """An operation that a CUDA graph cannot hold."""


class OnDevice(TorchDispatchMode):
    """Within it, every tensor is made on the device, and none is read.

    Attributes:
        operations: how many there were that make tensors or change them.
        empties: how many of these launch nothing.
    """

    def __init__(self, device: torch.device = META, *, strict: bool = True):
        super().__init__()
        self.device, self.strict, self.operations, self.empties = device, strict, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, or refuses it."""
        name = func._schema.name
        if self.strict and name in HOST:
            raise HostNeeded(f"{name} needs the host")
        if (
            name == "aten::_fused_adam_"
        ):  # has no rule for tensors without values; it changes its arguments alone
            found, made = None, tree_leaves([args, kwargs])
        else:
            found = func(*args, **(kwargs or {}))
            made = tree_leaves(found)
        tensors = [leaf for leaf in made if isinstance(leaf, torch.Tensor)]
        elsewhere = [leaf for leaf in tensors if leaf.device != self.device]
        if self.strict and elsewhere:
            raise HostNeeded(f"{name} made a tensor on {elsewhere[0].device}, not on {self.device}")
        if name.startswith("aten::index") and any(
            t.dtype == torch.bool for t in tree_leaves(args[1:]) if isinstance(t, torch.Tensor)
        ):
            raise HostNeeded(f"{name} has a shape that the host must read")
        self.operations += not func.is_view
        self.empties += name in {"aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided"}
        return found
