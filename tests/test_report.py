"""The report: one page that needs no network, its numbers and formulas, on a study made for the test."""

import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from analysis import mathml, report, runner
from analysis.study import Claim
from tests.made_study import (
    Small,
    breaking,
    failing,
    make,
)


class Page(HTMLParser):
    """Collects the tags of a page, what they refer to, the content of meta elements, and the text."""

    def __init__(self, html):
        """Reads the page."""
        super().__init__()
        self.references, self.text, self.meta, self.tags = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Notes a tag; nothing may carry its own style or script."""
        self.tags.append(tag)
        values = dict(attrs)
        self.references += [
            values[name] for name in ("src", "href", "srcset", "action", "data") if name in values
        ]
        assert not [name for name in values if name.startswith("on") or name == "style"]
        if tag == "meta":
            self.meta.append(values)

    def handle_data(self, data):
        """Notes a piece of text."""
        self.text.append(data)


def page_of(*outcomes):
    html = report.render(
        outcomes, {"toyiwae": "<1>", "platform": "Linux", "arguments": {}}, "python -m analysis report"
    )
    return html, Page(html)


def test_the_report_is_one_file_that_needs_no_network():
    html, page = page_of(runner.run(make(), Small()))
    outside = [r for r in page.references if not r.startswith(("#", "data:image/png;base64,"))]
    own = ["small.png", "small.pdf", "small-curve.csv", "small.txt", "small.py.txt"]
    assert outside == ["explorer.html", "ledger.csv", "ledger.json", *own]
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", html))
    assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    (policy,) = [meta["content"] for meta in page.meta if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_report_escapes_text_and_shows_claims_first():
    html, page = page_of(runner.run(make(), Small()))
    assert "<small>" not in html
    assert "<over>" not in html
    assert "<1>" not in html
    assert html.index("falls &amp; &lt;b&gt;fast&lt;/b&gt;") < html.index("<figure>")
    assert "1 of 1 claims hold." in "".join(page.text)
    assert "−0.5 ± 10<sup>−9</sup>" in html
    assert "If x>0 & <i>whole</i> · slide “SNR”, Liévin et al. (2020)" in "".join(page.text)
    assert "<i>" not in html


def test_the_report_tells_of_failures_and_breakdowns():
    outcomes = [
        runner.run(make(verdicts=failing), Small()),
        runner.run(make(name="broken", compute=breaking), Small()),
    ]
    html, page = page_of(*outcomes)
    text = "".join(page.text)
    assert "0 of 1 claims hold; this report fails." in text
    assert "The study broke down: InputError: model.prior_cov is <bad>" in text
    assert html.count('class="verdict fail"') == 2


def test_a_missing_value_in_the_template_is_an_error():
    environment = report.environment()
    with pytest.raises(Exception, match="'missing' is undefined"):
        environment.from_string("{{ missing }}").render()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.49871234, "0.4987"), (-1.83e-7, "−1.83×10^−7"), (1e-9, "10^−9"), (-1e-9, "−10^−9"),
        (12.0, "12"), (0.0, "0"), (123456.0, "1.235×10^5"), (12345.6, "12346"), (0.001, "0.001"),
        (math.inf, "∞"), (math.nan, "none"),
        (9.99999e-7, "10^−6"), (1000.0, "1000"),
    ],
)  # fmt: skip
def test_numbers_read_as_in_a_paper(value, text):
    assert report.number(value) == text


@pytest.mark.parametrize(
    ("claim", "measured", "tolerance"),
    [
        (Claim("t", "x", 0.25, high=1e-8), "0.25", "≤ 10^−8"),
        (Claim("t", "x", -2e-5, low=0.0), "−2×10^−5", "≥ 0"),
        (Claim("t", "x", -0.5552, low=-1, high=0), "−0.5552", "−1 … 0"),
        (Claim.near("t", "x", -0.500007, expected=-0.5, within=0.005), "−0.50001", "−0.5 ± 0.005"),
        (Claim.near("t", "x", 1 + 2.08e-8, expected=1, within=4.153e-8), "1.0000000208", "1 ± 4.153×10^−8"),
        (Claim.near("t", "x", math.nan, expected=1, within=0.1), "none", "1 ± 0.1"),
    ],
)
def test_a_claim_shows_the_digits_that_decide_it(claim, measured, tolerance):
    assert (report.measured(claim), report.tolerance(claim)) == (measured, tolerance)


def test_numbers_in_prose_are_formulas():
    assert report.in_prose(6.42e-14) == r"$6.4\times 10^{-14}$"
    assert report.in_prose(-1e-12) == "$-10^{-12}$"
    assert report.in_prose(0.25) == "$0.25$"


def test_formulas_become_mathml():
    parsed = ElementTree.fromstring(
        mathml.to_mathml(r"-\frac{\nabla_\phi\mathrm{Var}[w]}{2KZ^2} \le \sqrt{\hat{L}_K^2}")
    )
    assert "".join(parsed.itertext()) == "−∇φVar[w]2KZ2≤L^K2"
    assert [element.tag for element in parsed] == ["mo", "mfrac", "mo", "msqrt"]
    powered = ElementTree.fromstring(mathml.to_mathml(r"\left(\langle w \rangle + 1\right)^{2}"))
    assert [element.tag for element in powered] == ["msup"]
    assert "".join(powered.itertext()) == "(⟨w⟩+1)2"
    assert json.dumps(mathml.to_mathml(r"a<b")) == json.dumps(
        "<math><mi>a</mi><mo>&lt;</mo><mi>b</mi></math>"
    )


@pytest.mark.parametrize(
    "formula",
    [
        r"\foo",
        "x_",
        "{x",
        r"\frac{a}",
        "x__y",
        "a & b",
        "x^2^3",
        "}",
        r"\text x",
        r"\left(x",
        r"x\right)",
        r"\langle x",
    ],
)
def test_formulas_outside_the_subset_are_refused(formula):
    with pytest.raises(ValueError, match="formula"):
        mathml.to_mathml(formula)
