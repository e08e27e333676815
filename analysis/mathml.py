r"""Formulas for the report: a small subset of TeX, turned into MathML that browsers show without any network.

The subset: letters, digits, `+ - = < > ( ) [ ] | , . : / ! '`, groups `{}`, `_` and `^`, `\frac`, `\sqrt`,
`\left` … `\right`, `\langle` … `\rangle`, accents (`\hat`, `\tilde`, `\bar`), `\mathrm` and `\text`, spaces
(`\,` `\;` `\quad`), and the commands of `SYMBOLS`, `OPERATORS` and `FUNCTIONS`. Anything else is an error: a formula
is shown as meant or not at all. matplotlib reads the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as Xml

from markupsafe import Markup

SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ",
    "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "phi": "φ", "Gamma": "Γ", "Delta": "Δ", "Sigma": "Σ", "ell": "ℓ",
    "Lambda": "Λ", "Theta": "Θ", "omega": "ω", "infty": "∞",
}  # fmt: skip
OPERATORS = {
    "le": "≤", "ge": "≥", "ne": "≠", "to": "→", "sim": "∼", "approx": "≈", "equiv": "≡", "propto": "∝",
    "in": "∈", "cdot": "⋅", "times": "×", "pm": "±", "mid": "∣", "Vert": "∥", "partial": "∂", "nabla": "∇",
    "sum": "∑", "int": "∫", "{": "{", "}": "}",
}  # fmt: skip
SPACES = {",": "0.17em", ";": "0.28em", "quad": "1em"}
FUNCTIONS = ("log", "exp", "max", "min", "lim")
ACCENTS = {"hat": "^", "tilde": "~", "bar": "¯"}
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
_SIGNS = {"-": "−", "'": "′"}
_LOOKS = {sign: {"stretchy": "false"} for sign in "()[]"} | {
    "|": {"stretchy": "false", "lspace": "0", "rspace": "0"},
    "/": {"lspace": "0.08em", "rspace": "0.08em"},
}


def to_mathml(formula: str, *, display: bool = False) -> str:
    r"""Turns a formula into a `<math>` element.

    Args:
        formula: in the subset of TeX described above, without dollar signs.
        display: as a block of its own rather than within a line.

    Raises:
        ValueError: for anything outside the subset; names the formula and the part.

    >>> to_mathml(r"L_K")
    '<math><msub><mi>L</mi><mi>K</mi></msub></math>'
    """
    parser = _Parser(formula)
    math = Xml.Element("math", {"display": "block"} if display else {})
    math.extend(parser.row(until=None))
    return Xml.tostring(math, encoding="unicode")


def prose(text: str) -> Markup:
    """Text as HTML: formulas stand between dollar signs, everything else is escaped.

    Raises:
        ValueError: for a formula that does not end, and as `to_mathml` does.
    """
    parts = text.split("$")
    if len(parts) % 2 == 0:
        raise ValueError(f"a formula does not end: {text!r}")
    inside = (to_mathml(part) if n % 2 else str(Markup.escape(_bind(part))) for n, part in enumerate(parts))
    return Markup("".join(inside))


def _bind(text: str) -> str:
    """Keeps "= 64" with what stands before it, and a full stop with the formula it follows."""
    glued = f"\u2060{text}" if text[:1] in tuple(".,;:)") else text
    return glued.replace(" = ", "\u00a0=\u00a0")


def _leaf(tag: str, text: str, **attributes: str) -> Xml.Element:
    element = Xml.Element(tag, attributes)
    element.text = text
    return element


def _branch(tag: str, children: list[Xml.Element], **attributes: str) -> Xml.Element:
    element = Xml.Element(tag, attributes)
    element.extend(children)
    return element


class _Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, formula: str):
        self.formula = formula
        self.tokens = [token for token in _TOKEN.findall(formula) if not token.isspace()]

    def fail(self, what: str) -> ValueError:
        return ValueError(f"formula {self.formula!r}: {what}")

    def take(self) -> str:
        if not self.tokens:
            raise self.fail("ends too early")
        return self.tokens.pop(0)

    def row(self, until: str | None) -> list[Xml.Element]:
        """Everything up to the token `until`, which is taken too; None is the end."""
        items: list[Xml.Element] = []
        while self.tokens if until is None else self.tokens[:1] != [until]:
            items.append(self.scripted())
        if until is not None:
            self.take()
        return items

    def scripted(self) -> Xml.Element:
        """An atom with its subscript and superscript."""
        base = self.atom()
        scripts: dict[str, Xml.Element] = {}
        while self.tokens and self.tokens[0] in "_^":
            mark = self.take()
            if mark in scripts:
                raise self.fail(f"two {mark} after each other")
            scripts[mark] = self.atom()
        if len(scripts) == 2:
            return _branch("msubsup", [base, scripts["_"], scripts["^"]])
        if "_" in scripts:
            return _branch("msub", [base, scripts["_"]])
        return _branch("msup", [base, scripts["^"]]) if scripts else base

    def fenced(self) -> Xml.Element:
        r"""What stands between `\left` and `\right`, with delimiters as high as it is."""
        opening, inner = self.take(), self.row(until=r"\right")
        return self.between(opening, inner, self.take())

    def between(self, opening: str, inner: list[Xml.Element], closing: str) -> Xml.Element:
        left, right = (_leaf("mo", sign, stretchy="true") for sign in (opening, closing))
        return _branch("mrow", [left, *inner, right])

    def atom(self) -> Xml.Element:
        token = self.take()
        if token == "{":
            return _branch("mrow", self.row(until="}"))
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return _leaf("mn", token)
        if token.isalpha():
            return _leaf("mi", token)
        if token in "+-=<>()[]|,.:/!'":
            return _leaf("mo", _SIGNS.get(token, token), **_LOOKS.get(token, {}))
        raise self.fail(f"{token!r} is outside the subset of TeX known here")

    def command(self, name: str) -> Xml.Element:
        if name in SYMBOLS:
            return _leaf("mi", SYMBOLS[name])
        if name in OPERATORS:
            return _leaf("mo", OPERATORS[name])
        if name in SPACES:
            return Xml.Element("mspace", {"width": SPACES[name]})
        if name in FUNCTIONS:
            apart = [] if self.tokens[:1] and self.tokens[0] in "([_^}" else [self.command(",")]
            return _branch("mrow", [_leaf("mi", name), *apart])
        if name in ACCENTS:
            return _branch("mover", [self.atom(), _leaf("mo", ACCENTS[name])], accent="true")
        builders: dict[str, Callable[[], Xml.Element]] = {
            "frac": lambda: _branch("mfrac", [self.atom(), self.atom()]),
            "sqrt": lambda: _branch("msqrt", [self.atom()]),
            "left": self.fenced,
            "langle": lambda: self.between("⟨", self.row(until=r"\rangle"), "⟩"),
            "mathrm": lambda: _leaf("mi", self.words("mathrm"), mathvariant="normal"),
            "text": lambda: _leaf("mtext", self.words("text")),
        }
        if name in builders:
            return builders[name]()
        raise self.fail(f"\\{name} is outside the subset of TeX known here")

    def words(self, command: str) -> str:
        r"""The plain text in the braces after `\mathrm` or `\text`; spaces come from `~`."""
        if self.take() != "{":
            raise self.fail(f"\\{command} needs braces")
        parts = []
        while (token := self.take()) != "}":
            parts.append("\u00a0" if token == "~" else token)
        return "".join(parts)


def plain(text: str) -> str:
    r"""Prose with formulas as text for a terminal: no dollars, letters for their names.

    >>> plain(r"the $\alpha$-divergence of $z_1$")
    'the α-divergence of z_1'
    """
    return re.sub(r"\\([A-Za-z]+) ?", lambda found: SYMBOLS.get(found[1], found[1]), text.replace("$", ""))
