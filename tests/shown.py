"""What a page shows beside what a command prints."""

import math
import re

NUMBER = re.compile(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?")
SAMPLED = ("toyiwae estimate", "toyiwae check", "toyiwae list")
"""Commands whose numbers depend on the engine, or of which there are none."""


def masked(text: str) -> str:
    """The text without digits, rules and spacing, and without what depends on the machine."""
    text = re.sub(r'"(platform|torch)": ".*",', "", text)
    text = re.sub(r"[-+]?\d+(\.\d*)*(e[-+]?\d+)?", "#", text)
    return re.sub(r"─+", "─", " ".join(text.split()))


def numbers(text: str) -> list[float]:
    """All numbers of a text; bounds on errors, which are below 1e-9 and belong to the machine, as 0."""
    text = re.sub(r'"provenance": .*', "", text, flags=re.DOTALL)  # versions
    found = [float(number) for number in NUMBER.findall(text) if number.count(".") < 2]
    return [0.0 if abs(number) < 1e-9 else number for number in found]


def differences(command: str, shown: str, printed: str) -> list[tuple[float, float]]:
    """Numbers that a page shows and the command does not print, to a thousandth; none for commands that sample."""
    if command.startswith(SAMPLED):
        return []
    pairs = zip(numbers(shown), numbers(printed), strict=True)
    return [(one, other) for one, other in pairs if not math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-9)]
