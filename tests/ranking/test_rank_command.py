"""Claims about `kilter rank`: what it says it understood, warnings first, the leaderboard, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from kilter import instruments
from kilter.errors import ConfigError, DataError
from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.comparisons import Rankings
from kilter.ranking.leaderboard import FIELDS, leaderboard
from kilter.ranking.report import Report, Settings, rank

# A beat B 8 times and lost 4, beat C 3 times and lost 5.
FOOTBALL = Comparisons.counted(["A", "A", "A", "A"], ["B", "B", "C", "C"], [1, 0, 1, 0], [8, 4, 3, 5])


def football(path: Path) -> Path:
    rows = ["A,B,left"] * 8 + ["A,B,right"] * 4 + ["A,C,left"] * 3 + ["C,A,left"] * 5
    path.write_text("left,right,winner\n" + "\n".join(rows) + "\n")
    return path


def said(*files: Path, settings: Settings | None = None, **options: Any) -> tuple[str, Report]:
    printed = io.StringIO()
    found = rank([*map(str, files)], settings or Settings(), console=Console(file=printed), **options)
    return printed.getvalue(), found


def test_the_football_leaderboard_is_in_the_order_of_its_odds() -> None:
    lines = leaderboard(fit_comparisons(FOOTBALL), scale="odds", anchor=("B", 1.0)).lines
    assert [line.item for line in lines] == ["C", "A", "B"]
    assert [line.strength for line in lines] == pytest.approx([10 / 3, 2, 1], rel=1e-9)
    assert [line.games for line in lines] == [8, 20, 12]
    assert [line.win_rate for line in lines] == pytest.approx([5 / 8, 11 / 20, 4 / 12])
    assert [line.rank for line in lines] == [1, 2, 3]
    assert all(line.low is not None and line.low <= line.strength for line in lines)


def test_what_was_understood_comes_first_and_names_the_columns(tmp_path: Path) -> None:
    text, _ = said(football(tmp_path / "b.csv"), predict=("A", "B"))
    first, blank, head, *rest = text.splitlines()
    assert first == "20 comparisons of 3 items: left against right; winner says who won"
    assert blank == ""
    assert head.split()[:3] == ["rank", "between", "item"]
    assert [line.split()[2] for line in rest[:3]] == ["C", "A", "B"]
    assert any(line.startswith("A beats B: 66.7% (") for line in rest)
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_warnings_come_before_the_leaderboard(tmp_path: Path) -> None:
    path = football(tmp_path / "b.csv")
    path.write_text(path.read_text() + "C,C,left\nA,,left\n")
    text, _ = said(path, skip_missing=True)
    assert text.splitlines()[1:3] == [
        "warning: 1 row with something missing left out",
        "warning: 1 row left out that compare an item with itself, which says nothing about it",
    ]


def test_an_undefeated_item_is_refused_with_the_flags_that_help(tmp_path: Path) -> None:
    path = football(tmp_path / "b.csv")
    path.write_text(path.read_text() + "Z,A,left\n")
    with pytest.raises(DataError, match=r"never lost to any other: Z\..*--disconnected within.*--prior"):
        said(path)
    text, found = said(path, settings=Settings(disconnected="prior"))
    assert "warning: never lost to any other: Z; their strengths rest on the prior (variance 1)" in text
    assert found.board.lines[0].item == "Z"
    text, found = said(path, settings=Settings(disconnected="within"))
    assert "1 comparison between groups not used" in text
    assert found.board.lines[-1].low is None
    assert "unknown" in text


def test_judges_and_grades_bring_sandwich_intervals(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    rng = np.random.default_rng(0)
    rows = [
        f"{a},{b},{rng.uniform(1, 2):.3f},j{rng.integers(4)}" for a in "xyz" for b in "xyz" if a != b for _ in range(9)
    ]
    path.write_text("model_a,model_b,preference,judge\n" + "\n".join(rows) + "\n")
    assert said(path)[1].board.intervals == "sandwich"
    text, found = said(path, judge="judge")
    assert "warning: intervals rest on 4 judges" in text
    assert found.board.intervals == "sandwich"
    text, _ = said(path, settings=Settings(intervals="wald"))
    assert "warning: wald intervals take grades for wins and losses" in text


def test_comparisons_to_make_next_are_suggested_also_where_there_is_no_ranking(tmp_path: Path) -> None:
    path = football(tmp_path / "b.csv")
    text, found = said(path, suggest=2)
    first = found.suggestions[0]
    assert {first.left, first.right} == {"B", "C"}
    assert text.count("compare next: ") == 2
    path.write_text(path.read_text() + "Z,A,left\n")
    with pytest.raises(DataError, match=r"Compare more \(\w against \w"):
        said(path, suggest=1)


@pytest.mark.parametrize("intervals", ["wald", "sandwich", "profile", "bootstrap"])
def test_every_kind_of_interval_is_about_as_wide(intervals: Any) -> None:
    many = Comparisons.counted(["A", "A", "A", "A"], ["B", "B", "C", "C"], [1, 0, 1, 0], [800, 400, 300, 500])
    fitted = fit_comparisons(many)
    wald = {line.item: line for line in leaderboard(fitted, scale="elo", anchor=("B", 1000.0)).lines}
    for line in leaderboard(fitted, scale="elo", anchor=("B", 1000.0), intervals=intervals).lines:
        other = wald[line.item]
        assert line.strength == other.strength
        assert (line.low, line.high) == pytest.approx((other.low, other.high), abs=6)


def test_rankings_have_a_leaderboard_too(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("ranking\n" + "x > y > z\n" * 3 + "y > x > z\nz > y > x\n")
    text, found = said(path, predict=("x", "z"))
    assert isinstance(found.reading.data, Rankings)
    assert text.startswith("5 rankings of 3 items: ranking holds items from best to worst\n")
    assert {line.item for line in found.board.lines} == {"x", "y", "z"}
    assert "x before z: " in text
    with pytest.raises(ConfigError, match="--ties and --order-effect are for comparisons"):
        said(path, settings=Settings(ties="davidson"))
    text, found = said(path, suggest=2)
    assert text.count("compare next: ") == len(found.suggestions) == 2
    path.write_text("ranking\nx > y > z\nx > z > y\n")
    with pytest.raises(DataError, match=r"never lost to any other: x.* Compare more \(x against [yz]\)"):
        said(path, suggest=1)


def test_bootstrap_intervals_are_drawn_and_say_how_many_draws_had_no_estimate(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("ranking\n" + "x > y > z\n" * 3 + "y > x > z\nz > y > x\n")
    picture = tmp_path / "out.svg"
    text, _ = said(path, settings=Settings(intervals="bootstrap"), plot=picture)
    assert "1,000 draws of rankings; in" in text
    assert "left out: intervals are too narrow" in text
    bootstrapped = picture.read_text()
    said(path, settings=Settings(intervals="wald"), plot=picture)
    assert bootstrapped != picture.read_text()


def test_judges_prompts_and_weights_of_rankings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("ranking,who,task,w\nx > y > z,bob,q,1\ny > x > z,ann,p,0.5\nz > y > x,cor,q,2\n")
    _, found = said(path, judge="who", prompt="task", weight="w")
    assert found.board.intervals == "sandwich"
    assert any("intervals rest on 3 judges" in warning for warning in found.warnings)
    held = found.reading.data
    assert isinstance(held, Rankings)
    assert held.judges == ("ann", "bob", "cor")
    assert sorted(held.weight) == [0.5, 1, 2]
    with pytest.raises(ConfigError, match="covariates are for comparisons"):
        said(path, covariates=["w"])


def test_intervals_without_width_are_told(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("left,right,winner\na,b,tie\nb,c,tie\nc,a,tie\n")
    _, found = said(path, settings=Settings(ties="half", intervals="sandwich"))
    assert any("some sandwich intervals have no width" in warning for warning in found.warnings)
    assert not said(path, settings=Settings(ties="half"))[1].warnings


def test_csv_json_and_picture_hold_every_item(tmp_path: Path) -> None:
    path = football(tmp_path / "b.csv")
    text, found = said(path, csv=tmp_path / "out.csv", plot=tmp_path / "out.svg", top=1)
    assert "and 2 more" in text
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == FIELDS
    assert [row[3] for row in rows] == ["C", "A", "B"]
    assert float(rows[0][4]) == found.board.lines[0].strength
    assert (tmp_path / "out.svg").read_text().startswith("<svg")
    told = json.loads(said(path, as_json=True)[0])
    assert [line["item"] for line in told["leaderboard"]] == ["C", "A", "B"]
    assert told["columns"] == {"left": "left", "right": "right", "winner": "winner"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"csv": Path("out.txt")}, r"--csv out.txt does not end in .csv"),
        ({"plot": Path("out.png")}, r"--plot out.png does not end in .svg"),
    ],
)
def test_what_cannot_be_written_is_refused_before_reading(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        said(Path("nothing.csv"), **options)


def test_the_command_takes_its_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = football(tmp_path / "b.csv")
    instruments.rank(str(path), anchor="A=1000", columns="winner=winner", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert {line["item"]: line["strength"] for line in found["leaderboard"]}["A"] == 1000
    for flags, wrong in (
        ({"anchor": "A"}, "--anchor is 'A'"),
        ({"columns": "x"}, "--columns is 'x'"),
        ({"top": 0}, "--top"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            instruments.rank(str(path), **flags)  # type: ignore[arg-type]


def test_ranking_a_file_loads_neither_torch_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom kilter.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(sorted({'torch', 'pandas', 'polars', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    path = football(tmp_path / "b.csv")
    ran = subprocess.run([sys.executable, "-c", code, "rank", path], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
