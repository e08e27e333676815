"""What Sphinx lacks: formulas as MathML, docstrings as this package writes them, the registry as a table."""

import inspect
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import toyiwae
from analysis import derivations
from analysis.mathml import to_mathml
from toyiwae.cli import listing

logger = logging.getLogger(__name__)
KEYS = re.findall(
    r"^@\w+\{([^,\s]+),", (Path(__file__).parents[1] / "references.bib").read_text(), re.MULTILINE
)
KEY = re.compile(rf"\[?\b({'|'.join(KEYS)})\b\]?")
LITERAL = re.compile(r"(`[^`]*`)")


def mathml(node: nodes.Element, *, display: bool) -> str:
    """A formula; one outside the subset of TeX is a warning, with the place where it stands."""
    try:
        return to_mathml(node.astext(), display=display)
    except ValueError as error:
        logger.warning(str(error), location=node)
        return node.astext()


def visit_math(self: Any, node: nodes.math) -> None:
    """A formula within a line."""
    self.body.append(mathml(node, display=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    self.body.append(f'<div style="overflow: auto hidden">{mathml(node, display=True)}</div>')
    raise nodes.SkipNode


def restructured(lines: list[str]) -> list[str]:
    """A docstring of this package as reStructuredText.

    Outside of backticks, bars, stars and underscores mean themselves; an indented paragraph is a formula and
    keeps its lines; a key of the bibliography becomes a citation.
    """
    result: list[str] = []
    above = ""  # the last line that is not blank
    for line in lines:
        indented = line.startswith("    ")
        if indented and above and not above.startswith(" ") and not result[-1].strip():
            result += ["::", ""]
        verbatim = indented and "::" in result and not above.endswith(":")
        result.append(line if verbatim or in_literal(result, line) else escaped(line))
        above = line if line.strip() else above
    return result


def in_literal(before: list[str], line: str) -> bool:
    """Whether a line continues the literal block above it, or a doctest."""
    if line.lstrip().startswith(">>>"):
        return True
    if not line.startswith("    "):
        return False
    opened = [i for i, text in enumerate(before) if text == "::"]
    return bool(opened) and all(text.startswith("    ") or not text for text in before[opened[-1] + 1 :])


def escaped(line: str) -> str:
    """A line of prose with everything but backticks and bullets taken literally."""
    bullet, text = re.match(r"(\s*(?:[*-] )?)(.*)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
    pieces = LITERAL.split(text)
    for i in range(0, len(pieces), 2):
        plain = re.sub(r"([|*])", r"\\\1", re.sub(r"(?<=\w)_(?!\w)", r"\\_", pieces[i]))
        pieces[i] = KEY.sub(r":cite:t:`\1`", plain)
    return bullet + "".join(pieces)


def prepare(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Hands autodoc's docstrings to `restructured`, before napoleon sees them."""
    lines[:] = restructured(lines)


class Estimators(SphinxDirective):
    """The registry: a table of all families, then each one's docstring."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        lines = [
            *(".. list-table::", "   :header-rows: 1", "   :widths: auto", ""),
            *row(
                "name",
                "unbiased in θ for",
                "unbiased in φ for",
                "least K",
                "0 at q = posterior",
                "what it is",
            ),
        ]
        for entry in listing.entries():
            parameter, target = entry["parameter"], entry["target"]
            name = f"{entry['name']}:{parameter['name']}" if parameter else entry["name"]
            vanishes = "yes" if entry["flags"]["vanishes_at_posterior"] else ""
            targets = [target[part] or "no bound" for part in ("theta", "phi")]
            lines += row(
                f"``{name}``", *targets, str(entry["min_particles"]), vanishes, escaped(entry["summary"])
            )
        for estimator in toyiwae.estimators.all():
            function = getattr(estimator.function, "func", estimator.function)
            text = (inspect.getdoc(function) or "").partition("References:")[0].rstrip()
            cited = [f"({', '.join(f':cite:t:`{key}`' for key in estimator.cite)})"] if estimator.cite else []
            lines += ["", f".. rubric:: {estimator.family}", "", *restructured(text.splitlines()), "", *cited]
        return self.parse_text_to_nodes(StringList(lines, source="registry"))  # pyright: ignore[reportArgumentType]


class ReferenceNumbers(SphinxDirective):
    """Exact moments of all registered estimators on one problem, by the first coordinate of both means."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"particles": directives.positive_int}

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        problem = toyiwae.load(Path(self.env.srcdir, self.arguments[0]))
        K = self.options["particles"]
        cell = toyiwae.exact(problem, K=K, estimators=toyiwae.estimators.all()).cell(K)
        lines = [".. list-table::", "   :header-rows: 2", "   :widths: auto", ""]
        lines += row("", "model", "", "", "proposal", "", "", "")
        lines += row("name", "std", "SNR", "RMSE to ∇ log p(x)", "bias", "std", "SNR", "RMSE to its target")
        for name, gradient in cell.gradients.items():
            model, proposal = (gradient.parameters[part] for part in ("prior_mean", "proposal_mean"))
            by_model = (std(model), first(model.snr), first(model.rmse_evidence))
            by_proposal = (first(proposal.bias), std(proposal), first(proposal.snr), first(proposal.rmse))
            lines += row(f"``{name}``", *by_model, *by_proposal)
        return self.parse_text_to_nodes(StringList(lines, source="registry"))  # pyright: ignore[reportArgumentType]


def first(values: Any) -> str:
    """The first coordinate, or a dash where it is not known."""
    return "–" if values is None or np.isnan(values[0]) else f"{values[0]:.3g}"


def std(found: Any) -> str:
    """The standard deviation of the first coordinate."""
    return first(None if found.var is None else np.sqrt(found.var))


class PublicNames(SphinxDirective):
    """A table of the package's public names, each with a link to where it is documented."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        lines = [".. list-table::", "   :widths: auto", ""]
        for name in toyiwae.__all__:
            value = getattr(toyiwae, name)
            home = value.__name__ if inspect.ismodule(value) else f"{value.__module__}.{value.__qualname__}"
            role = "mod" if inspect.ismodule(value) else "obj"
            summary = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
            lines += row(f":py:{role}:`{name} <{home}>`", escaped(summary))
        return self.parse_text_to_nodes(StringList(lines, source="toyiwae"))  # pyright: ignore[reportArgumentType]


class Derivations(SphinxDirective):
    """What SymPy derives, each formula under its title; made anew at every build."""

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        introduction = re.sub(r"\$([^$]*)\$", r":math:`\1`", derivations.INTRODUCTION)
        lines = [introduction.replace("\n", " "), ""]
        for title, formulas in derivations.formulas().items():
            shown = [line for formula in formulas for line in (f".. math:: {formula}", "")]
            lines += [f".. rubric:: {escaped(title)}", "", *shown]
        return self.parse_text_to_nodes(StringList(lines, source="derivations"))  # pyright: ignore[reportArgumentType]


def row(*cells: str) -> list[str]:
    """One row of a list-table."""
    first, *rest = cells
    return [f"   * - {first}", *(f"     - {cell}" for cell in rest)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers all of it."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.connect("autodoc-process-docstring", prepare, priority=100)
    app.add_directive("estimators", Estimators)
    app.add_directive("reference-numbers", ReferenceNumbers)
    app.add_directive("derivations", Derivations)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
