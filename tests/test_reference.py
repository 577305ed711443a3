"""Claims about the pages under docs/reference: those written from a table of the code are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

from kilter.model.architectures import ARCHITECTURES

WRITER = Path(__file__).parents[1] / "docs" / "reference" / "make_models.py"


def test_the_page_of_models_is_what_the_table_says() -> None:
    written = runpy.run_path(str(WRITER))
    page = written["page"]()
    assert all(f"| `{kind}` | {row.families} |" in page for kind, row in ARCHITECTURES.items())
    assert written["PAGE"].read_text(encoding="utf-8") == page, "run: python docs/reference/make_models.py"
