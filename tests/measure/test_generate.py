"""Claims about `kilter generate`: what it reads, asks, shows and writes, and what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kilter.data.reading import read_pairs
from kilter.errors import ConfigError, DataError, ModelError
from kilter.measure import generate as module
from kilter.measure.config import GenerateConfig
from kilter.measure.generate import Generated, generate
from kilter.measure.side_by_side import escaped
from kilter.tokens.encoding import Encoder

MakeModel = Callable[..., PreTrainedModel]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({"<eos>": 0} | {piece: i for i, piece in enumerate(pieces, 1)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


@pytest.fixture
def save(tiny_model: MakeModel, tmp_path: Path) -> Callable[..., str]:
    """Saves a tiny model with the tokenizer, and returns its path."""

    def make(name: str, shape: str = "llama", **changes: Any) -> str:
        own = tokenizer()
        tiny_model(shape, **({"vocab_size": len(own)} | changes)).save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("what is a bee?\n\nhow big?\nwhat is a bee?\n")
    return path


def run(*, terminal: bool = False, width: int = 80, **settings: Any) -> tuple[Generated, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    given = {"max_new_tokens": 6, "device": "cpu"} | settings
    return generate(GenerateConfig(**given), console), stream.getvalue()


def test_a_judge_says_how_often_the_first_model_is_preferred(
    save: Callable[..., str], prompts: Path, tmp_path: Path
) -> None:
    """By the judge's own rule, from the answers that were written."""
    (tmp_path / "mine.py").write_text("def reward(prompt, answer):\n    return ord(answer[0]) if answer else 0\n")
    names = {"model": save("a"), "against": save("b", seed=1)}
    out = tmp_path / "out.jsonl"
    found, text = run(**names, prompts=prompts, samples=4, out=out, judge=f"{tmp_path / 'mine.py'}:reward")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    ours, theirs = ([row["answer"] for row in rows if row["model"] == name] for name in names.values())
    first = [ord(answer[0]) if answer else 0 for answer in ours], [ord(answer[0]) if answer else 0 for answer in theirs]
    assert found.win_rate is not None
    assert found.win_rate.wins == sum(a > b for a, b in zip(*first, strict=True))
    assert found.win_rate.losses == sum(a < b for a, b in zip(*first, strict=True))
    assert found.win_rate.describe()[:40] in " ".join(text.split())


def test_a_judge_needs_another_model(save: Callable[..., str], prompts: Path) -> None:
    with pytest.raises(ConfigError, match="give --against"):
        run(model=save("m"), prompts=prompts, judge="operator:contains")


def test_columns_are_taken_for_prompts(save: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("id,question\n1,how big?\n2,how old?\n")
    _, text = run(model=save("m"), prompts=[str(path)], columns={"prompt": "question"})
    assert "2 prompts, format prompt (prompts, whatever answers stand beside them), ignored keys: id" in text


def test_one_model_answers_every_distinct_prompt_in_the_order_of_the_file(
    save: Callable[..., str], prompts: Path
) -> None:
    found, text = run(model=save("m"), prompts=prompts, samples=3)
    (evaluation,) = found.answers.values()
    assert found.complete
    assert len(evaluation.scored) == 6
    assert "3 prompts, format prompt (prompts, whatever answers stand beside them)" in text
    assert "1 the same as an earlier one, answered once" in text
    assert text.index("=== prompt 1, ") < text.index("Human: what is a bee?") < text.index("=== prompt 2, ")
    assert f"=== prompt 2, {prompts}:3" in text
    assert "6 answers to 2 prompts, temperature 1, at most 6 tokens" in text
    assert "KL" not in text
    assert evaluation.disagreement.largest < 1e-4


def test_two_models_are_shown_side_by_side_with_kl_in_both_directions(save: Callable[..., str], prompts: Path) -> None:
    names = {"model": save("first"), "against": save("second", seed=1)}
    found, text = run(terminal=True, prompts=prompts, **names, samples=4)
    first, second = found.answers.values()
    assert list(found.answers) == list(names.values())
    assert first.answer_kl is not None
    assert second.answer_kl is not None
    assert "│" in text
    assert f"{first.answer_kl.kl.value:.3f} ± {first.answer_kl.kl.standard_error:.3f}" in text
    assert f"{second.answer_kl.kl.value:.3f} ± {second.answer_kl.kl.standard_error:.3f}" in text
    assert "of answers cut at 6 tokens" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line or "±" in line)


def test_a_model_beside_its_copy_says_the_same_at_a_kl_of_zero(save: Callable[..., str], prompts: Path) -> None:
    found, _ = run(model=save("m"), against=save("copy"), prompts=prompts)
    first, second = found.answers.values()
    assert [a.answer.tolist() for a in first.samples] == [b.answer.tolist() for b in second.samples]
    assert first.summary()["answer_kl_policy_reference"] == pytest.approx(0, abs=1e-6)


def test_rows_hold_every_answer_and_are_written_as_they_are_made(
    save: Callable[..., str], prompts: Path, tmp_path: Path
) -> None:
    names = {"model": save("first"), "against": save("second", seed=1)}
    found, _ = run(prompts=prompts, **names, samples=2, out=tmp_path / "rows.jsonl", show=0)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["line"], row["model"], row["sample"]) for row in rows] == [
        (line, name, sample) for line in (1, 3) for name in names.values() for sample in (1, 2)
    ]
    assert {(row["model"], row["reference"]) for row in rows} == {
        (names["model"], names["against"]),
        (names["against"], names["model"]),
    }
    assert rows[0]["prompt"] == "\n\nHuman: what is a bee?\n\nAssistant:"
    kl = np.mean([row["kl_policy_reference"] for row in rows if row["model"] == names["model"]])
    assert kl == pytest.approx(found.answers[names["model"]].summary()["answer_kl_policy_reference"])


def test_prompts_of_pairs_are_rendered_as_training_renders_them(save: Callable[..., str], tmp_path: Path) -> None:
    data = tmp_path / "hh.jsonl"
    turns = "\n\nHuman: hi\n\nAssistant: a\n\nHuman: how big?\n\nAssistant:"
    data.write_text(json.dumps({"chosen": turns + " b", "rejected": turns + " c"}) + "\n")
    (pair,), _ = Encoder(tokenizer()).encode_pairs(read_pairs(data).rows)
    found, _ = run(model=save("m"), prompts=data)
    (sample,) = found.answers[str(tmp_path / "m")].samples
    assert sample.prompt.tolist() == pair.chosen.ids[: pair.chosen.first].tolist()


USER, SAID = {"role": "user", "content": "hi"}, "\n\nHuman: hi\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "as it is"}, "as it is"),
        ({"prompt": [USER], "completion": "ab", "label": True}, SAID),
        ({"messages": [USER]}, SAID),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, SAID),
    ],
)
def test_rows_with_a_prompt_or_messages_are_answered(
    row: dict[str, Any], prompt: str, save: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    run(model=save("m"), prompts=tmp_path / "p.jsonl", out=tmp_path / "rows.jsonl")
    assert json.loads((tmp_path / "rows.jsonl").read_text())["prompt"] == prompt


def test_last_takes_the_last_rows_and_their_answers_do_not_depend_on_the_others(
    save: Callable[..., str], prompts: Path
) -> None:
    model = save("m")
    prompts.write_text("a?\nb?\nc?\n")
    every, some = (run(model=model, prompts=prompts, last=last)[0].answers[model].samples for last in (None, 2))
    assert [s.answer.tolist() for s in every[1:]] == [s.answer.tolist() for s in some]


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_that_a_model_says_is_obeyed(
    terminal: bool, save: Callable[..., str], prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "\x1b[31mred\x1b[0m [bold]b[/bold] [/] :smile:\r\u202e\tend\x07"
    monkeypatch.setattr("kilter.measure.side_by_side.answer_text", lambda *_: said)
    _, text = run(terminal=terminal, model=save("m[red]"), prompts=prompts, width=200)
    assert r"\x1b[31mred\x1b[0m [bold]b[/bold] [/] :smile:\r\u202e" in text
    assert not {"\x07", "\t", "\u202e", *([] if terminal else ["\x1b", "\r"])} & set(text)
    assert "\x1b[31m" not in text
    assert "m[red]" in text


def test_escaped_text_keeps_its_lines_and_writes_out_what_controls_a_terminal() -> None:
    assert escaped("\n\na\n\tb\x00\x9b\n") == "a\n    b\\x00\\x9b"


def test_stopping_keeps_what_was_done(
    save: Callable[..., str], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWERS_AT_ONCE", 1)
    evaluate = module.sample_evaluation
    asked: list[int] = []

    def until_stopped(*given: Any, **named: Any) -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return evaluate(*given, **named)

    monkeypatch.setattr(module, "sample_evaluation", until_stopped)
    found, text = run(model=save("m"), prompts=prompts, out=tmp_path / "rows.jsonl")
    assert not found.complete
    assert "stopped after 1 of 2 prompts" in text
    assert "1 answer to 1 prompt," in text
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1
    asked[:] = [1]  # and where nothing was done, there is nothing to keep
    with pytest.raises(KeyboardInterrupt):
        run(model=str(tmp_path / "m"), prompts=prompts)


def test_what_cannot_be_answered_is_refused_with_what_to_do(save: Callable[..., str], prompts: Path) -> None:
    model, folder = save("m"), prompts.parent
    with pytest.raises(ConfigError, match=r"prompts.txt:1: a prompt of .* pass the 64 positions .* --max-new-tokens"):
        run(model=model, prompts=prompts, max_new_tokens=60)
    with pytest.raises(ConfigError, match=r"prompts.txt:1: .*the node budget is 20; raise --node-budget to 4\d"):
        run(model=model, prompts=prompts, node_budget=20)
    with pytest.raises(ConfigError, match="the model itself"):
        run(model=model, prompts=prompts, against=model)
    with pytest.raises(ConfigError, match=r"does not end in \.jsonl"):
        run(model=model, prompts=prompts, out=folder / "rows.csv")
    (folder / "rows.jsonl").touch()
    with pytest.raises(ConfigError, match=r"rows.jsonl exists; .*--overwrite"):
        run(model=model, prompts=prompts, out=folder / "rows.jsonl")
    with pytest.raises(ConfigError, match=r"vocabulary of \d+ and the reference of 48"):
        run(model=model, prompts=prompts, against=save("small", vocab_size=48))
    with pytest.raises(DataError, match="No such file"):
        run(model=model, prompts=folder / "none.txt")
    (folder / "blank.txt").write_text("\n \n")
    with pytest.raises(DataError, match="has no rows; expected a prompt a line"):
        run(model=model, prompts=folder / "blank.txt")
    (folder / "text.jsonl").write_text('{"text": "a document"}\n')
    with pytest.raises(DataError, match="prompt-messages"):
        run(model=model, prompts=folder / "text.jsonl")
    (Path(model) / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        run(model=model, prompts=prompts)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "mamba"])
def test_architectures_of_either_path_answer(shape: str, save: Callable[..., str], prompts: Path) -> None:
    found, _ = run(model=save("m", shape), prompts=prompts, temperature=0.0)
    (evaluation,) = found.answers.values()
    assert evaluation.disagreement.largest < 1e-4
