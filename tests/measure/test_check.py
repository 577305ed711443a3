"""Claims about `kilter check` as a whole: facts of small files, what must be mended, exit codes, what is printed."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kilter.data.records import Labelled, Message, Origin, Pair, Ranking, Record, Steps
from kilter.errors import ConfigError, DataError
from kilter.measure import check as module
from kilter.measure.check import Checked, check
from kilter.measure.config import CheckConfig
from kilter.measure.findings import Finding
from measure.words import FORGETFUL, word_tokenizer
from test_cli import KILTER, KILTER_AND_LOADED, kilter

CLEAN = [
    {"prompt": "a b c", "chosen": "d e", "rejected": "d f g"},
    {"prompt": "h i", "chosen": "j", "rejected": "k"},
    {"prompt": "l", "chosen": "m n", "rejected": "o"},
]
# What a file may hold to take over a terminal, and letters of several widths.
CONTROL = "\x1b[31m red \x07 \u202e turned \x9b2J \r back \u200b\ufeff"
CHINESE = "请用中文介绍一下北京的历史和文化，谢谢！" * 12
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama's configuration with the words' tokenizer; it has no weights, and needs none."""
    from transformers import LlamaConfig

    directory = tmp_path_factory.mktemp("model")
    word_tokenizer(FORGETFUL).save_pretrained(directory)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaConfig(vocab_size=64, max_position_embeddings=32, tie_word_embeddings=True, **shape).save_pretrained(directory)
    return directory


def looked(*data: Path, console: Console | None = None, **settings: Any) -> Checked:
    config = CheckConfig(data=tuple(map(str, data)), **settings)
    return check(config, console or Console(file=io.StringIO(), width=80))


def printed(*data: Path, **settings: Any) -> str:
    out = io.StringIO()
    looked(*data, console=Console(file=out, width=80), **settings)
    return out.getvalue()


def must(checked: Checked) -> list[str]:
    return [finding.what for finding in checked.to_mend]


# Facts.


def test_facts_of_a_small_file_are_those_counted_by_eye(tmp_path: Path) -> None:
    checked = looked(written(tmp_path / "pairs.jsonl", CLEAN))
    facts = checked.facts
    assert checked.findings == ()
    assert (facts.kinds, facts.ties, facts.duplicates.prompts) == ({"pair": 3}, 0, 3)
    assert [file.read for file in facts.files] == [("prompt", "chosen", "rejected")]
    assert (facts.characters["prompt"].p50, facts.characters["prompt"].longest) == (3, 5)
    assert facts.bias is not None
    assert (facts.bias.longer.value, facts.bias.pairs, facts.bias.equal) == (0.5, 2, 1)
    assert (facts.tokens, facts.estimate, facts.limit) == (None, None, None)


def test_rows_of_every_kind_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    from kilter.data.reading import Dataset, FileAccount

    here = Origin("rows", 1)
    rows: tuple[Record, ...] = (
        Pair("p", "a", "b", here, preference=0.5),
        Pair("p", "a", "c", here, preference=0.8),
        Labelled("q", "a", True, here),
        Ranking("r", ("a", "b b", "c c c"), (1, 2, 2), here),
        Steps("s", ("one", "two"), (True, False), here),
        Pair((Message("system", "x"), Message("user", "y")), (Message("assistant", "a"),), (Message("assistant", "b"),),
             here, tools='[{"type":"function"}]'),
    )  # fmt: skip
    files = (FileAccount("rows", "", "pair-text", 6),)
    monkeypatch.setattr(module, "read_records", lambda *given, **how: Dataset(rows, files))
    facts = looked(Path("rows")).facts
    assert facts.kinds == {"pair": 3, "labelled": 1, "ranking": 1, "steps": 1}
    assert (facts.ties, facts.graded) == (1, 1)
    assert facts.balance is not None
    assert (facts.balance.good, facts.balance.bad) == (2, 1)  # two of them steps
    assert facts.ranked is not None
    assert facts.ranked.longest == 3
    assert facts.turns.parts == {"system prompts": 1, "tools": 1}
    assert (facts.turns.conversations, facts.turns.several_answers) == (1, 0)
    said = printed(Path("rows"))
    for words in ("ties", "graded", "2 good, 1 bad", "answers a ranking", "answers in steps"):
        assert words in said


def test_the_files_to_evaluate_on_are_looked_for_in_the_data(tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", CLEAN)
    other = CLEAN[1] | {"chosen": "x", "rejected": "y"}
    held_out = written(tmp_path / "eval.jsonl", [CLEAN[0], other, {"prompt": "z", "chosen": "a", "rejected": "b"}])
    checked = looked(data, eval_data=(str(held_out),))
    assert must(checked) == ["1 row of 3 to evaluate on is in the data"]
    [listed] = checked.to_mend[0].listed
    assert listed == f"{held_out}:1: see {data}:1"
    [prompt] = checked.worth_a_look
    assert "1 of 3 prompts" in prompt.what
    assert must(looked(data, eval_data=(str(written(tmp_path / "new.jsonl", [other | {"prompt": "new"}])),))) == []


# With a model.


def test_a_model_adds_tokens_limits_and_an_estimate(model: Path, tmp_path: Path) -> None:
    checked = looked(written(tmp_path / "pairs.jsonl", CLEAN), model=str(model))
    tokens, estimate = checked.facts.tokens, checked.facts.estimate
    assert tokens is not None
    # 6 + 7 less 4, 4 + 4 less 2, 4 + 3 less 1
    assert (tokens.tokens, tokens.nodes) == (28, 28 - 4 - 2 - 1)
    assert checked.facts.limit is not None
    assert (checked.facts.limit.tokens, checked.facts.limit.by) == (32, "positions")
    assert checked.findings == ()
    assert estimate is not None
    assert estimate.steps == 1
    assert estimate.memory > estimate.weights == 4 * estimate.parameters


def test_rows_over_a_limit_must_be_mended_unless_they_are_dropped(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", CLEAN)
    refused = looked(data, model=str(model), max_length=6)
    assert must(refused) == ["1 row of 3 is longer than 6 tokens (--max-length)"]
    assert refused.to_mend[0].listed == (f"{data}:1: 7 tokens",)
    dropped = looked(data, model=str(model), max_length=6, on_overflow="drop")
    assert (must(dropped), len(dropped.worth_a_look)) == ([], 1)
    assert must(looked(data, model=str(model), max_length=7)) == []
    [budget] = looked(data, model=str(model), node_budget=5).to_mend
    assert "Raise --node-budget to 7" in budget.remedy


def test_a_template_that_loses_system_prompts_must_be_mended(model: Path, tmp_path: Path) -> None:
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    answers = {side: [{"role": "assistant", "content": side[0]}] for side in ("chosen", "rejected")}
    data = written(tmp_path / "chat.jsonl", [{"prompt": said, **answers}])
    assert must(looked(data, model=str(model))) == ["The chat template loses the system prompts of 1 row"]
    assert must(looked(data, model=str(model), style="plain")) == []


def test_rows_that_the_template_refuses_must_be_mended(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": f"a {end}"}],
             "chosen": [{"role": "assistant", "content": "b"}],
             "rejected": [{"role": "assistant", "content": "c"}]} for end in ("b", "</s>")]  # fmt: skip
    data = written(tmp_path / "chat.jsonl", rows)
    [finding] = looked(data, model=str(model)).to_mend
    assert finding.what == "1 row cannot be written out for the model"
    assert finding.listed[0].startswith(f"{data}:2: the message of role 'user' contains the special token '</s>'")
    assert must(looked(data, model=str(model), skip_bad=True)) == []


def test_examples_mark_what_is_scored(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", CLEAN[:1])
    [example] = looked(data, model=str(model)).facts.examples
    assert (example.prompt, example.tokens) == ("a b c", True)
    parts = {
        answer.part: [(stretch.text, stretch.scored) for stretch in answer.stretches] for answer in example.answers
    }
    assert parts == {"chosen": [("d e </s>", True)], "rejected": [("d f g </s>", True)]}
    lines = printed(data, model=str(model)).splitlines()
    assert "    chosen     [d e </s>]" in lines


def test_turns_between_answers_are_not_scored(model: Path, tmp_path: Path) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    data = written(tmp_path / "sft.jsonl", [{"messages": [{"role": role, "content": said} for role, said in turns]}])
    [example] = looked(data, model=str(model)).facts.examples
    [answer] = example.answers
    assert [(stretch.text.split(), stretch.scored) for stretch in answer.stretches] == [
        (["b", "</s>"], True),
        (["user", ":", "c", "</s>", "assistant", ":"], False),
        (["d", "</s>"], True),
    ]
    assert "[b </s>]" in printed(data, model=str(model))


# What must be mended, and what is worth a look.


def test_bad_rows_are_listed_and_must_be_mended_or_skipped(tmp_path: Path) -> None:
    same = {"prompt": "p", "chosen": "same", "rejected": "same"}
    data = written(tmp_path / "pairs.jsonl", [*CLEAN, *[same] * 7])
    checked = looked(data)
    assert must(checked) == ["7 rows of 10 cannot be used"]
    assert checked.to_mend[0].listed[0] == f"{data}:4: rejected: is identical to chosen; expected two different answers"
    assert len(checked.to_mend[0].listed) == 5
    assert "and 2 more" in printed(data)
    assert must(looked(data, skip_bad=True)) == []


def test_copies_and_contradictions_are_worth_a_look_and_no_more(tmp_path: Path) -> None:
    turned = {"prompt": "h i", "chosen": "k", "rejected": "j"}
    checked = looked(written(tmp_path / "pairs.jsonl", [*CLEAN, CLEAN[0], turned]))
    assert must(checked) == []
    assert [finding.what for finding in checked.worth_a_look] == [
        "1 row says the opposite of an earlier one about the same answers",
        "1 row is a copy of an earlier one",
    ]


@pytest.mark.parametrize(("longer", "said"), [(30, "The longer answer"), (0, "The shorter answer")])
def test_a_lopsided_length_is_worth_a_look(longer: int, said: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{i}", "chosen": "x" * (9 if i < longer else 1), "rejected": "y" * (1 if i < longer else 9)}
        for i in range(30)
    ]
    [finding] = looked(written(tmp_path / "pairs.jsonl", rows)).worth_a_look
    assert finding.what.startswith(said)


def test_labels_of_one_kind_are_worth_a_look(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": "x", "label": True} for i in range(3)]
    [finding] = looked(written(tmp_path / "kto.jsonl", rows)).worth_a_look
    assert finding.what == "Every answer is labelled good"


def test_files_of_ties_alone_must_be_mended(tmp_path: Path) -> None:
    row = {"instruction": "a", "output_1": "b", "output_2": "c", "preference": 1.5}
    assert must(looked(written(tmp_path / "ties.jsonl", [row]))) == ["Every row is a tie"]


def test_what_cannot_be_looked_at_is_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a file"):
        check(CheckConfig())
    sides = written(tmp_path / "food.jsonl", [{"left": "Pizza", "right": "Sushi", "winner": "left"}])
    with pytest.raises(DataError, match="which side won and not what either wrote"):
        looked(sides)
    with pytest.raises(ValueError, match="max_length counts tokens; give model too"):
        CheckConfig(max_length=5)


# What is printed.


def awkward(tmp_path: Path) -> Path:
    """Chinese, Arabic and wide text, and control characters wherever a file can put them."""
    rows: list[dict[str, Any]] = [
        {"prompt": CHINESE, "chosen": "好的，" + CHINESE, "rejected": "[bold]z[/bold]" + "不" * 300},
        {"prompt": CONTROL, "chosen": f"a {CONTROL}", "rejected": "مرحبا بالعالم " * 40, CONTROL: 1, "宽" * 90: 2},
        {"prompt": "x" * 500, "chosen": "y" * 500, "rejected": "z" * 500},
        {"prompt": CONTROL, "chosen": "", "rejected": CONTROL},
        *[{"prompt": CONTROL + CHINESE, "chosen": f"a{i}", "rejected": "b"} for i in range(4)],
    ]
    return written(tmp_path / ("文件" * 20 + ".jsonl"), rows)


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_wider_than_the_terminal_and_nothing_steers_it(
    with_model: bool, terminal: bool, model: Path, tmp_path: Path
) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=terminal)
    settings = {"model": str(model)} if with_model else {}
    looked(awkward(tmp_path), console=console, **settings)
    text = out.getvalue()
    assert ("\x1b" in text) == terminal  # our own colours, of which nothing else is left
    lines = ESCAPES.sub("", text).split("\n")
    assert [line for line in lines if cell_len(line) > 80] == []
    assert [line for line in lines if not line.isprintable()] == []
    assert any("北京" in line for line in lines)
    assert any(r"\x1b[31m" in line for line in lines)
    assert terminal or not any(line.endswith(" ") for line in lines)
    # The words' tokenizer does not know these.
    assert with_model or any("[bold]z[/bold]不" in line for line in lines)


def test_numbers_stand_one_below_the_other(tmp_path: Path) -> None:
    lines = printed(written(tmp_path / "pairs.jsonl", CLEAN)).splitlines()
    heading = next(line for line in lines if line.endswith("longest"))
    below = lines[lines.index(heading) + 1 :][:3]
    assert {len(line) for line in below} == {len(heading)}


def test_a_section_without_facts_is_not_there(tmp_path: Path) -> None:
    said = printed(written(tmp_path / "texts.jsonl", [{"text": "12"}]))
    assert "Preferences" not in said
    assert "To mend" not in said
    assert said.splitlines()[-1] == "Nothing must be mended."


# From the command line.


def test_exit_codes_say_whether_anything_must_be_mended(tmp_path: Path) -> None:
    clean = written(tmp_path / "clean.jsonl", CLEAN)
    bad = written(tmp_path / "bad.jsonl", [*CLEAN, {"prompt": "p", "chosen": "", "rejected": "x"}])
    assert kilter("check", clean).returncode == 0
    for arguments in ([bad], ["--data", clean, bad], [clean, bad, "--json"]):
        ran = kilter("check", *arguments)
        assert (ran.returncode, ran.stderr) == (1, "")
    assert kilter("check", bad, "--skip-bad").returncode == 0
    nothing = kilter("check")
    assert nothing.returncode == 1
    assert nothing.stderr.startswith("error: there is nothing to look at")


def test_json_says_the_same_and_reads_back(model: Path, tmp_path: Path) -> None:
    data = awkward(tmp_path)
    ran = kilter("check", data, "--model", model, "--json", "--eval", data)
    said = json.loads(ran.stdout)
    assert ran.stdout.isascii()
    assert set(said) == {"facts", "to_mend", "worth_a_look"}
    checked = looked(data, model=str(model), eval_data=(str(data),))
    assert said["facts"]["kinds"] == dict(checked.facts.kinds) == {"pair": 7}
    assert said["facts"]["tokens"]["nodes"] == checked.facts.tokens.nodes  # type: ignore[union-attr]
    assert [Finding(**{**found, "listed": tuple(found["listed"])}) for found in said["to_mend"]] == list(
        checked.to_mend
    )
    assert said["facts"]["scripts"][0].keys() == {"name", "share", "rows"}
    origins = [example["origin"] for example in said["facts"]["examples"]]
    assert origins[0] == f"{data}:1"


def test_without_a_model_neither_torch_nor_transformers_is_loaded(tmp_path: Path) -> None:
    ran = kilter("check", written(tmp_path / "pairs.jsonl", CLEAN), code=KILTER_AND_LOADED)
    loaded = set(ran.stdout.splitlines()[-1].strip("[]").replace("'", "").split(", "))
    assert not loaded & {"torch", "transformers"}


def test_who_stops_reading_is_told_nothing(tmp_path: Path) -> None:
    data = written(tmp_path / "pairs.jsonl", CLEAN * 50)
    code = f"import sys; sys.argv = ['kilter', 'check', {str(data)!r}, '--json']; {KILTER}"
    reader = "import sys; sys.stdin.buffer.read(1)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        subprocess.run([sys.executable, "-c", reader], stdin=writing.stdout, check=True)
        writing.stdout.close()
        assert writing.stderr.read() == b""
