"""Claims about the command line, each run as a process of its own: quick help, and mistakes told in a sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from kilter.cli import app, main
from kilter.flags import OTHER, SUBJECTS, by_subject
from kilter.objectives import OBJECTIVES
from kilter.train.config import OBJECTIVES as NAMED_IN_HELP

COMMANDS = ("align", "sweep", "sft", "check", "score", "compare", "generate", "convert", "demo", "kl", "rank")
KILTER = "from kilter.cli import main; main()"
# The same, and the heavy modules that it loaded as its last line.
KILTER_AND_LOADED = """
import sys
from kilter.cli import main
try:
    main()
finally:
    print(sorted({"torch", "transformers", "tokenizers"} & set(sys.modules)))
"""
FRESH = "layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300,length=64"


def kilter(*arguments: str | Path, code: str = KILTER, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False
    )


class Here(Protocol):
    """Runs a command that fails, in this process: what it needs is loaded once for all of them."""

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["kilter", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(left.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Say a letter.", "chosen": " b", "rejected": " 1"}\n' * 4)
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    ran = kilter(*arguments, code=KILTER_AND_LOADED)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    assert set(COMMANDS) <= set(kilter("--help").stdout.split())


def test_help_says_of_each_command_what_its_function_says() -> None:
    for name in COMMANDS:
        called = app[name].default_command
        assert called is not None
        assert called.__name__ == name
        assert app[name].help == called.__doc__


def test_help_of_align_names_every_objective() -> None:
    """Though it does not load the table of them, which would load torch."""
    assert [name for name, row in OBJECTIVES.items() if row.takes != "answers"] == list(NAMED_IN_HELP)
    assert set(OBJECTIVES) <= set(re.findall(r"\w+", kilter("align", "--help").stdout))


def test_every_flag_has_a_subject_and_every_subject_a_flag() -> None:
    settings = {
        str(argument.field_info.name)
        for name in COMMANDS
        for argument in app[name].assemble_argument_collection()
        if argument.show and argument.name.startswith("--")
    }
    subjects = by_subject(settings)
    assert OTHER not in subjects
    assert {name for names in subjects.values() for name in names} == settings
    assert list(subjects) == list(SUBJECTS)
    assert len([name for names in SUBJECTS.values() for name in names]) == len(settings)


def test_settings_without_a_subject_come_last() -> None:
    assert by_subject(["novel", "beta", "data"]) == {"Data": ["data"], "Objective": ["beta"], OTHER: ["novel"]}


def test_help_shows_each_flag_once_in_the_panel_of_its_subject() -> None:
    help_ = kilter("align", "--help").stdout
    assert help_.startswith("Usage: kilter align ")
    panels = dict(re.findall(r"─ (\w[\w ]*) ─+╮\n(.*?)╰", help_, flags=re.DOTALL))
    assert list(panels)[:4] == ["Model", "Data", "Run and output", "Text and length"]
    assert "--lora-rank INT" in panels["Adapters"]
    assert "--columns FIELD=COLUMN,..." in panels["Data"]
    for argument in app["align"].assemble_argument_collection():
        if argument.show:
            flag = re.compile(rf"(?<![\w-]){argument.name}(?![\w-]).*│$", flags=re.MULTILINE)
            assert (
                sum(bool(re.search(rf"^│[ *]{{1,4}}{flag.pattern}", text, re.MULTILINE)) for text in panels.values())
                == 1
            )


def test_help_shows_what_is_told_by_its_place() -> None:
    assert re.search(r"─ Arguments ─+╮\n│ PATHS ", kilter("convert", "--help").stdout)


def the_one_line(ran: subprocess.CompletedProcess[str]) -> str:
    """What a failed command says is wrong; it must be one line, of which progress messages are none."""
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    (line,) = (line for line in ran.stderr.splitlines() if line.startswith("error: "))
    assert ran.stderr.endswith(line + "\n")
    return line


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    ran = kilter("align", "--model", "m", "--data", tmp_path / "none.jsonl", "--out", tmp_path / "run")
    assert "none.jsonl: cannot be read: No such file" in the_one_line(ran)
    assert ran.stderr.count("\n") == 1


def test_an_unknown_objective_is_told_with_those_there_are(pairs: Path, tmp_path: Path, here: Here) -> None:
    ran = here("align", "--model", "m", "--data", pairs, "--out", tmp_path / "run", "--objective", "simp")
    assert the_one_line(ran).endswith(
        f"no objective 'simp'; did you mean simpo? choose one of: {', '.join(OBJECTIVES)}"
    )
    assert ran.stderr.count("\n") == 1


def test_an_option_that_the_objective_would_ignore_is_refused(pairs: Path, tmp_path: Path, here: Here) -> None:
    given = ["--objective", "ipo", "--label-smoothing", "0.1"]
    ran = here("align", "--model", "m", "--data", pairs, "--out", tmp_path / "run", *given)
    assert "objective 'ipo' does not use label_smoothing" in the_one_line(ran)
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--label-smoothing", "0.5"], "label_smoothing of dpo is 0.5; expected a number at least 0 and below 0.5"),
        (["--beta", "0"], "beta of dpo is 0; expected a number above 0"),
        (["--beta", "nan"], "beta of dpo is nan; expected a number above 0"),
        (["--objective", "kto", "--desirable-weight", "-1"], "desirable_weight of kto is -1; expected a number above"),
        (["--objective", "ipo(beta=-1) + 0.2*sft"], "beta of ipo is -1; expected a number above 0"),
        (["--objective", "dpo(gamma=1)"], "objective 'dpo' has no option 'gamma'; it has: beta, label_smoothing"),
    ],
)
def test_an_option_out_of_the_objectives_range_is_told_before_anything_is_loaded(
    flags: list[str], told: str, tmp_path: Path, here: Here
) -> None:
    given = ["--model", "no-such-model", "--data", "no-such-data", "--out", tmp_path / "run"]
    ran = here("align", *given, *flags)
    assert told in the_one_line(ran)
    assert ran.stderr.count("\n") == 1


def test_data_come_through_standard_input_with_columns_renamed(tmp_path: Path) -> None:
    given = ["--data", "-", "--columns", "prompt=question,chosen=best.text,rejected=worst"]
    row = '{"question": "q", "best": {"text": "a"}, "worst": "b"}\n'
    ran = kilter("align", "--model", str(tmp_path), "--out", tmp_path / "run", *given, stdin=row * 3)
    assert ran.stderr.startswith("standard input: 3 pairs, format pair-text (prompt and answers as text), ignored")
    the_one_line(ran)


def test_settings_of_reading_reach_the_reader(pairs: Path, tmp_path: Path, here: Here) -> None:
    told = {"format": "there is no format 'hhh'", "columns": "no row has the column hhh, which is to be chosen"}
    for command in "align", "sft", "score":
        out = [] if command == "score" else ["--out", tmp_path / "run"]
        for name, said in told.items():
            value = "hhh" if name == "format" else "chosen=hhh"
            assert said in the_one_line(here(command, "--model", "m", "--data", pairs, *out, f"--{name}", value))


def test_files_are_given_in_a_row_or_one_by_one(tmp_path: Path) -> None:
    given = ["--model", "m", "--out", "o", "--data", "a.jsonl", "b.csv", "--data", "-", "--eval-data", "c", "d"]
    given += ["--columns", "chosen=winner, prompt=a.b", "--format", "hh"]
    lines = kilter("align", *given, "--print-config").stdout.splitlines()
    assert {'data = ["a.jsonl", "b.csv", "-"]', 'eval_data = ["c", "d"]', 'format = "hh"'} <= set(lines)
    assert 'columns = { chosen = "winner", prompt = "a.b" }' in lines
    (tmp_path / "run.toml").write_text("\n".join(lines))
    assert kilter("align", "--config", tmp_path / "run.toml", "--print-config").stdout.splitlines() == lines


def test_two_evaluation_sets_are_refused(pairs: Path, tmp_path: Path) -> None:
    given = ["--holdout", "1", "--eval-data", pairs]
    ran = kilter("align", "--model", "m", "--data", pairs, "--out", tmp_path / "run", *given)
    assert "give one of them" in the_one_line(ran)
    assert ran.stderr.count("\n") == 1


def test_a_missing_flag_is_named(pairs: Path) -> None:
    assert the_one_line(kilter("score", "--data", pairs)) == "error: --model is required"


def test_a_value_out_of_bounds_is_told_with_its_flag(pairs: Path, tmp_path: Path) -> None:
    ran = kilter("align", "--model", "m", "--data", pairs, "--out", tmp_path / "run", "--reference-mix", "1.5")
    assert "--reference-mix should be less than or equal to 1, got 1.5" in the_one_line(ran)
    assert ran.stderr.count("\n") == 1


def test_a_directory_in_use_is_left_as_it_is(pairs: Path, tmp_path: Path, here: Here) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    ran = here("sft", "--from-scratch", FRESH, "--data", pairs, "--out", out, "--overwrite")
    assert "it does not look like a run" in the_one_line(ran)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_directory_in_use_is_told_before_anything_is_loaded(pairs: Path, tmp_path: Path, here: Here) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = here("align", "--model", "no-such-model", "--data", pairs, "--out", tmp_path)
    assert "exists and is not empty" in the_one_line(ran)


def test_a_misspelt_flag_gets_a_suggestion(pairs: Path, tmp_path: Path) -> None:
    ran = kilter("align", "--model", "m", "--data", pairs, "--out", tmp_path / "run", "--lable-smoothing", "0.1")
    assert ran.returncode
    assert "Traceback" not in ran.stderr
    assert "Did you mean --label-smoothing?" in ran.stderr


def test_a_misspelt_command_gets_a_suggestion() -> None:
    ran = kilter("algin")
    assert ran.returncode
    assert 'Did you mean "align"?' in ran.stderr


def test_settings_survive_being_printed_and_read_again(tmp_path: Path) -> None:
    given = ["--data", "d.jsonl", "--out", "o", "--model", "m", "--beta", "0.3", "--lora-rank", "4"]
    given += ["--lora-targets", "q_proj", "--lora-targets", "v_proj", "--save-every", "20"]
    printed = kilter("align", *given, "--print-config", code=KILTER_AND_LOADED)
    *lines, loaded = printed.stdout.splitlines()
    assert loaded == "[]"
    assert {"beta = 0.3", 'lora_targets = ["q_proj", "v_proj"]', 'save_every = "20"'} <= set(lines)
    (tmp_path / "run.toml").write_text("\n".join(lines))
    again = kilter("align", "--config", tmp_path / "run.toml", "--beta", "0.5", "--print-config")
    assert again.stdout.splitlines() == [line.replace("beta = 0.3", "beta = 0.5") for line in lines]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("betta = 0.3\n", "run.toml: there is no setting 'betta'; did you mean beta?"),
        ("beta = \n", "run.toml cannot be read as settings: Invalid value"),
        ('beta = "x"\ndata = "d"\nout = "o"\nmodel = "m"\n', "--beta should be a valid number"),
    ],
)
def test_a_mistake_in_a_file_of_settings_is_told_in_one_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(text)
    assert told in the_one_line(kilter("align", "--config", tmp_path / "run.toml"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--resume", "nowhere"], "there is no run in nowhere"),
        (["--resume", "nowhere", "--out", "there"], "leave out away"),
        (["--save-every", "3h"], "--save-every should be steps (200), minutes (30m) or seconds (90s), got 3h"),
        (["--patience", "3"], "patience needs something to evaluate on"),
        (["--patience", "3", "--holdout", "5"], "give eval_every"),
        (["--lora-alpha", "3"], "give lora_rank too"),
        (["--sample-tokens", "3"], "give sample_eval too"),
        (["--reference-mix", "0.1", "--shard"], "a reference that moves does not go with shard"),
        (["--reference-every", "9", "--lora-rank", "4"], "a reference that moves does not go with lora_rank"),
        (["--data", "-", "--eval-data", "-"], "data and eval_data are both standard input"),
        (["--columns", "chosen"], "--columns should be FIELD=COLUMN, several with commas between"),
        (["--columns", "chosen=a,chosen=b"], "--columns names chosen twice"),
    ],
)
def test_options_that_contradict_each_other_are_told_in_one_line(arguments: list[str], told: str) -> None:
    given = [] if "--resume" in arguments else ["--data", "d", "--out", "o", "--model", "m"]
    assert told in the_one_line(kilter("align", *given, *arguments))


def test_a_value_among_several_is_told_by_its_flag() -> None:
    told = the_one_line(kilter("compare", "a", "b", "--data", "d", "--also", "renyi"))
    assert "--also should be 'jeffreys', 'js'" in told
    assert "--0" not in told
