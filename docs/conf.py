"""Sphinx configuration."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import toyiwae  # noqa: E402

project = "toyiwae"
author = "The toyiwae developers"
copyright = "The toyiwae developers"
version = release = toyiwae.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.bibtex",
    "house",
]
exclude_patterns = ["_build", "_ext", "_static", "_templates"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"toyiwae {version}"
html_math_renderer = "mathml"  # of the extension `house`: no network, no script
html_copy_source = False
html_static_path = ["_static"]
html_extra_path = ["explorer.html"]
html_css_files = ["house.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "literal"
suppress_warnings = ["ref.python"]  # a type named in a docstring that several classes have as an attribute
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

autosummary_generate = True
autodoc_mock_imports = ["triton"]  # not among what `make setup` installs
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,  # each object once, in the module that defines it
    "member-order": "bysource",
    "show-inheritance": True,
}
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("References", "references")]
