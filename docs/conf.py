"""How the site is built: `make docs`. Its source is the whole repository, so that links read alike here and there."""

from __future__ import annotations

from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

project = "kilter"
author = "the kilter authors"
copyright = "the kilter authors; Apache-2.0"  # noqa: A001 Sphinx's name
version = release = installed("kilter")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "docs/**"]
# Directories that need not be looked into.
exclude_patterns = [".*", "build", "src", "tests", "benchmarks", "examples", "runs"]

html_theme = "furo"
html_title = f"kilter {release}"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
html_css_files = ["site.css"]
html_static_path = ["_static"]

myst_heading_anchors = 4  # as GitHub makes them
smartquotes = False  # --flag is no dash
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "text"  # blocks without a language are commands and what they print

default_role = "code"  # docstrings have `names` in single ticks
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 110

REDIRECT = '<!DOCTYPE html><meta charset="utf-8"><title>kilter</title><meta http-equiv="refresh" content="0; url={0}">'


def settings_by_name(
    app: Sphinx, what: str, name: str, subject: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """A model of settings is not called by its forty fields; the command's page lists them."""
    if what == "class" and issubclass(subject, BaseModel):
        return "(**settings)", ""
    return None


def first_page(app: Sphinx, exception: Exception | None) -> None:
    """The site's root leads to its first page."""
    if exception is None:
        Path(app.outdir, "index.html").write_text(REDIRECT.format("docs/index.html"), encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", settings_by_name)
    app.connect("build-finished", first_page)
