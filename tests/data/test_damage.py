"""Every way to spoil a file in the table of damage.py is refused: where, in which field, what is wrong, what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data.damage import BOMB, Case, cases
from kilter.data import files
from kilter.data.reading import read_records
from kilter.errors import DataError

CASES = {case.name: case for case in cases()}
# What a person can do about it, or what was expected; one of them stands in every refusal.
REMEDY = re.compile(
    r"; (expected|use|remove|mend|fetch|rename|give|split|save|unpack|write|check|put|convert|name)\b|[Mm]end them"
)


def test_no_two_cases_have_one_name() -> None:
    assert len(CASES) == sum(1 for _ in cases())


@pytest.mark.parametrize("name", CASES)
def test_a_spoilt_file_is_refused_with_place_field_and_remedy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Case = CASES[name]
    monkeypatch.setattr(files, "LARGEST_UNPACKED", BOMB // 2)
    monkeypatch.setattr(files, "LARGEST_RATIO", 2)
    path = tmp_path / f"data{case.ending}"
    path.write_bytes(case.content)
    with pytest.raises(DataError) as caught:
        read_records(path)
    said = str(caught.value)
    assert said.replace("\n", "").isprintable()
    place = said.index(f"data{case.ending}{case.where}")
    for words in case.said:
        place = said.index(words, place)
    assert REMEDY.search(said), said


def test_the_guide_says_how_many_cases_there_are() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "your-data.md"
    assert f"{len(CASES):,} spoilt files" in guide.read_text(encoding="utf-8")
