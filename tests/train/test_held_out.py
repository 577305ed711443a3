"""Claims about evaluations: what they say of held-out examples and of sampled answers, and that it stays the same."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, RunError, StoppedError
from kilter.measure.displacement import Displacement
from kilter.measure.judges import judge_by_reward
from kilter.measure.kept_samples import read_samples, write_samples
from kilter.measure.statistics import mean_interval
from kilter.measure.win_rate import win_rate
from kilter.model.sampler import Sample, SamplingSettings
from kilter.train import held_out
from train.runs import assert_same_run, run
from train.test_resume import resume, stop_after

SAMPLED: dict[str, Any] = {"sample_eval": 6, "sample_tokens": 8}


def evaluations(out: Path) -> list[dict[str, Any]]:
    return [row for row in RunDirectory(out).read_metrics() if row.get("split") == "eval"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_loss_gap_and_margin_have_the_intervals_of_their_means_over_pairs(
    start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    aligned = run("dpo", start, pairs_file, tmp_path / "run", beta=0.3)
    last = evaluations(tmp_path / "run")[-1]
    gap_P = aligned.after.gap_P  # type: ignore[union-attr]
    for name, values in {"loss": np.logaddexp(0, -0.3 * gap_P), "gap": gap_P, "margin": 0.3 * gap_P}.items():
        found = [last[name], last[f"{name}_low"], last[f"{name}_high"]]
        assert found == pytest.approx(mean_interval(values), rel=1e-6)


def test_the_interval_of_a_sum_of_losses_heeds_that_they_are_of_the_same_pairs(
    start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Half of dpo, and sft in nats a token: per pair the influence of each on its mean, added."""
    aligned = run("dpo + 0.5*sft", start, pairs_file, tmp_path / "run")
    last = evaluations(tmp_path / "run")[-1]
    chosen = aligned.after.chosen  # type: ignore[union-attr]
    dpo_P = np.logaddexp(0, -0.1 * aligned.after.gap_P)  # type: ignore[union-attr]
    nats = -chosen.log_prob_A.sum() / chosen.tokens_A.sum()
    residual_P = dpo_P + 0.5 * (-chosen.log_prob_A - nats * chosen.tokens_A) / chosen.tokens_A.mean()
    _, low, high = mean_interval(residual_P)
    assert last["loss_high"] - last["loss_low"] == pytest.approx(high - low, rel=1e-5)
    assert last["loss"] == pytest.approx(dpo_P.mean() + 0.5 * nats, rel=1e-6)


def test_answers_moved_as_far_as_their_log_ratio_where_the_reference_is_the_start(
    start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    run("dpo", start, pairs_file, tmp_path / "run")
    first, last = evaluations(tmp_path / "run")
    for side in ("chosen", "rejected"):
        assert first[f"{side}_moved"] == 0
        assert last[f"{side}_moved"] == pytest.approx(last[f"{side}_log_ratio"])
        assert last[f"{side}_moved_low"] < last[f"{side}_moved"] < last[f"{side}_moved_high"]


def test_displacement_is_said_in_metrics_table_and_card(
    start: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Displacement, "both_fall", True)
    stream = io.StringIO()
    aligned = run("dpo", start, pairs_file, tmp_path / "run", Console(file=stream, width=2000))
    words = evaluations(tmp_path / "run")[-1]["displacement"]
    assert words.startswith("Likelihood displacement")
    assert words in stream.getvalue()
    assert words in (aligned.model / "README.md").read_text()


@pytest.mark.parametrize("width", [80, 120])
def test_numbers_of_the_account_are_not_broken_into_lines(
    width: int, start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    stream = io.StringIO()
    run("dpo", start, pairs_file, tmp_path / "run", Console(file=stream, width=width), **SAMPLED)
    text = stream.getvalue()
    table = text[text.index("16 held-out pairs") : text.index("±: one standard error")]
    assert max(map(len, table.splitlines())) <= width
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    rows = [
        line.strip("| ").split(" | ") for line in card.splitlines() if "| " in line and ("(+" in line or "±" in line)
    ]
    assert len(rows) > 12
    for cell in (cell for row in rows for cell in row[1:] if cell.strip()):
        assert cell.strip() in text


# The reference's own answers


def test_the_reference_answers_once_a_run_and_a_resumed_run_says_the_same(
    start: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[int] = []
    draw = held_out.draw_samples

    def counted(*given: Any, **named: Any) -> list[Sample]:
        draws.append(1)
        return draw(*given, **named)

    monkeypatch.setattr(held_out, "draw_samples", counted)
    given = {"eval_every": 2, **SAMPLED}
    run("dpo", start, pairs_file, tmp_path / "whole", **given)
    assert len(draws) == 1
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, tmp_path / "cut", **given)
    resume(tmp_path / "cut")
    assert len(draws) == 2
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    for name in ("samples.jsonl", "reference-samples.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_kl_and_entropy_of_answers_are_nil_and_alike_at_the_start_and_both_ways_measured_later(
    start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    run("dpo", start, pairs_file, tmp_path / "run", **SAMPLED)
    first, last = evaluations(tmp_path / "run")
    for name in ("answer_kl_policy_reference", "answer_kl_reference_policy"):
        assert abs(first[name]) < 1e-5
        assert last[name] > 0
        assert {f"{name}{by}{what}" for by in ("", "_k1", "_k3") for what in ("", "_se", "_variance")} <= last.keys()
    assert first["answer_entropy_policy"] == pytest.approx(first["answer_entropy_reference"], rel=1e-5)
    assert last["answer_entropy_reference"] == pytest.approx(first["answer_entropy_reference"], rel=1e-6)
    assert last["answer_entropy_policy"] != pytest.approx(first["answer_entropy_policy"], rel=1e-3)


def test_without_a_reference_entropy_is_all_there_is(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    run("simpo", start, pairs_file, tmp_path / "run", **SAMPLED)
    last = evaluations(tmp_path / "run")[-1]
    assert last["answer_entropy_policy"] > 0
    assert not any("kl" in name or "reference" in name for name in last)
    assert not (tmp_path / "run" / "reference-samples.jsonl").exists()


class Tokenizer:
    def decode(self, ids: list[int], **_: object) -> str:
        return " ".join(map(str, ids))


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, list[Sample], SamplingSettings]:
    prompt = np.array([5, 6], np.int32)
    samples = [
        Sample(prompt, np.array([7, 0], np.int32), np.array([-0.1, -1 / 3]), True),
        Sample(prompt, np.array([8, 9, 9], np.int32), np.array([-1e-9, -2.5, -700.0]), False),
    ]
    path, settings = tmp_path / "samples.jsonl", SamplingSettings(3)
    write_samples(samples, settings, path, Tokenizer())  # type: ignore[arg-type]
    return path, samples, settings


def test_samples_come_back_from_their_file_to_the_last_bit(kept: tuple[Path, list[Sample], SamplingSettings]) -> None:
    path, samples, settings = kept
    found = read_samples(path, [sample.prompt for sample in samples], settings)
    assert found is not None
    for one, wanted in zip(found, samples, strict=True):
        assert (one.prompt == wanted.prompt).all()
        assert (one.answer == wanted.answer).all()
        assert (one.log_prob == wanted.log_prob).all()
        assert one.finished is wanted.finished


def test_samples_of_other_prompts_or_settings_are_not_taken(kept: tuple[Path, list[Sample], SamplingSettings]) -> None:
    path, samples, settings = kept
    prompts = [sample.prompt for sample in samples]
    assert read_samples(path, prompts[:1], settings) is None
    assert read_samples(path, [prompts[0], prompts[0][::-1]], settings) is None
    assert read_samples(path, prompts, SamplingSettings(4)) is None
    assert read_samples(path, prompts, SamplingSettings(3, temperature=0.5)) is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"prompt_ids": [1]}'])
def test_a_file_of_samples_that_is_damaged_is_refused(
    damage: str, kept: tuple[Path, list[Sample], SamplingSettings]
) -> None:
    path, samples, settings = kept
    path.write_text(path.read_text() + damage + "\n")
    with pytest.raises(RunError, match="delete it, and they are drawn again"):
        read_samples(path, [sample.prompt for sample in samples], settings)


# Win rates


def test_sampled_answers_are_judged_against_the_references(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    judge = tmp_path / "mine.py"
    judge.write_text("def reward(prompt, answer):\n    return answer.count('l') + answer.count('o')\n")
    run("dpo", start, pairs_file, tmp_path / "run", judge=f"{judge}:reward", **SAMPLED)
    first, last = evaluations(tmp_path / "run")
    # Both models are one at the start, and draw with the same noise.
    assert (first["ties"], first["win_rate"]) == (6, 0.5)
    own, others = (lines(tmp_path / "run" / name) for name in ("samples.jsonl", "reference-samples.jsonl"))
    columns = [row["prompt"] for row in others], [row["answer"] for row in own[6:]], [row["answer"] for row in others]
    wanted = win_rate(*columns, judge_by_reward(lambda _, answer: answer.count("l") + answer.count("o")))
    assert {name: last[name] for name in wanted.summary()} == pytest.approx(wanted.summary(), nan_ok=True)
    assert "win rate of the policy" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_judge_needs_answers_and_a_reference(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="judge is for sampled answers; give sample_eval too"):
        run("dpo", start, pairs_file, tmp_path / "run", judge="operator:contains")
    with pytest.raises(ConfigError, match="no reference to be judged against; leave --judge out"):
        run("simpo", start, pairs_file, tmp_path / "run", judge="operator:contains", **SAMPLED)
