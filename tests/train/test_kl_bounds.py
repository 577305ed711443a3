"""Bounds on the KL of answers in a run: how it is measured, and where runs end that have a budget or a limit."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from safetensors.torch import load_file

from kilter.data.checkpoints import Checkpoints
from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, KilterError, StoppedError
from kilter.measure.samples import sample_evaluation
from kilter.model.loading import load_scorer, load_tokenizer
from kilter.model.sampler import SamplingSettings
from kilter.model.scorer import Scorer
from kilter.objectives import PairScores, parse
from kilter.objectives.pairwise import dpo
from kilter.tokens.encoding import Encoder
from kilter.train.config import AlignConfig
from kilter.train.examples import prompt_of
from kilter.train.kl_bounds import MEASURED, PENALTY, AnswerKlMeter, KlBounds
from kilter.train.kl_control import KlBudget
from kilter.train.optimizer import rate_at
from measure.test_samples import EOS, LONGEST, PROMPTS, VOCABULARY, all_answers, enumerated
from model.plain import in_plain_float64
from train.runs import assert_same_run, run, weights
from train.test_resume import resume, stop_after

SHORT = {"kl_tokens": 12, "kl_samples": 24, "holdout": 0}


@pytest.fixture(scope="module")
def far(start, pairs_file, tmp_path_factory):
    """A model that was aligned too far."""
    out = tmp_path_factory.mktemp("far") / "run"
    run("dpo", start, pairs_file, out, max_steps=24, schedule="constant", holdout=0)
    return out / "model"


def answer_kl(model, start, pairs_file, prompts=64):
    """Measured by another path, on other samples."""
    policy, tokenizer = load_scorer(str(model)), load_tokenizer(str(start))
    rows = Encoder(tokenizer, "auto").encode_pairs(read_pairs(pairs_file).rows).rows[:prompts]
    asked = [prompt_of(row) for row in rows for _ in range(4)]
    settings = SamplingSettings(SHORT["kl_tokens"])
    reference = load_scorer(str(start))
    return sample_evaluation(policy, reference, asked, settings, tokenizer=tokenizer, seed=99).answer_kl.kl


def measurements(directory):
    return [row for row in RunDirectory(directory).read_metrics() if row.get("split") == "kl"]


def steps_of(directory):
    return [row for row in RunDirectory(directory).read_metrics() if "split" not in row]


# How it is measured


def test_the_meter_is_unbiased_for_the_enumerated_kl_of_prompts_as_often_as_they_are_asked(tiny_model):
    models = [tiny_model("llama", vocab_size=VOCABULARY, seed=seed) for seed in (0, 1)]
    asked = [PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[4]]
    meter = AnswerKlMeter(Scorer(models[0]), Scorer(models[1]), asked, frozenset({EOS}), LONGEST, seed=3)
    found = [meter.measure(step, 50) for step in range(30)]
    p, q = (in_plain_float64(model) for model in models)
    log_p, log_q = ([enumerated(model, prompt) for prompt in asked] for model in (p, q))
    wanted = np.mean([float((a.exp() * (a - b)).sum()) for a, b in zip(log_p, log_q, strict=True)])
    other = np.mean([float((b.exp() * (b - a)).sum()) for a, b in zip(log_p, log_q, strict=True)])
    values = np.array([estimate.value for estimate in found])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert len(all_answers()) == 15
    assert abs(values.mean() - wanted) < 3.5 * error
    assert abs(values.mean() - other) > 10 * error
    assert np.mean([e.standard_error for e in found]) == pytest.approx(values.std(ddof=1), rel=0.4)


def test_a_measurement_follows_from_seed_and_step_alone(tiny_model):
    models = [tiny_model("llama", vocab_size=VOCABULARY, seed=seed) for seed in (0, 1)]

    def measured(seed, step):
        return AnswerKlMeter(Scorer(models[0]), Scorer(models[1]), PROMPTS, frozenset({EOS}), LONGEST, seed).measure(
            step, 20
        )

    torch.manual_seed(5)
    assert measured(0, 3) == measured(0, 3)
    assert len({measured(*at).value for at in ((0, 3), (0, 4), (1, 3))}) == 3


# A budget


def test_no_beta_of_dpo_makes_a_gap_smaller():
    """What a budget cannot be kept by: the loss falls with the gap at every gap, whatever beta."""
    gap_P = torch.linspace(-40, 40, 81, dtype=torch.float64, requires_grad=True)
    for beta in (0.01, 0.1, 1.0):
        pairs = PairScores.of_log_ratios(gap_P, torch.zeros_like(gap_P))
        (slope_P,) = torch.autograd.grad(dpo(pairs, beta=beta).sum(), gap_P)
        assert (slope_P < 0).all()


def test_a_model_aligned_too_far_comes_back_to_its_budget(far, start, pairs_file, tmp_path):
    before = answer_kl(far, start, pairs_file).value
    budget = 0.4 * before
    told = Console(file=io.StringIO(), width=400)
    given = {"reference": str(start), "kl_budget": budget, "kl_every": 2, "max_steps": 48}
    aligned = run("dpo", far, pairs_file, tmp_path / "run", told, **SHORT | given)
    rows = measurements(tmp_path / "run")
    assert rows[0][MEASURED] == pytest.approx(before, rel=0.15)
    assert rows[-1][MEASURED] == pytest.approx(budget, rel=0.1)
    independent = answer_kl(aligned.model, start, pairs_file)
    assert independent.value == pytest.approx(budget, rel=0.1, abs=3 * independent.standard_error)
    last = told.file.getvalue().strip().splitlines()[-1]
    assert re.search(rf"{rows[-1][MEASURED]:.3f} nats .standard error .* for a budget of {budget:g}, the weight", last)


def test_the_same_run_without_a_budget_does_not_come_back(far, start, pairs_file, tmp_path):
    before = answer_kl(far, start, pairs_file).value
    for beta in (0.1, 1.0):
        out = tmp_path / f"{beta}"
        aligned = run("dpo", far, pairs_file, out, reference=str(start), beta=beta, max_steps=24, holdout=0)
        assert answer_kl(aligned.model, start, pairs_file).value > 0.8 * before


def test_a_run_that_begins_at_the_reference_ends_at_its_budget(start, pairs_file, tmp_path):
    given = {"kl_budget": 0.2, "kl_every": 1, "max_steps": 40}
    aligned = run("dpo", start, pairs_file, tmp_path / "run", **SHORT | given)
    rows = measurements(tmp_path / "run")
    assert rows[0]["step"] == 1
    assert rows[0]["weight_kl"] < 0.1 < max(row["weight_kl"] for row in rows)
    assert rows[-1][MEASURED] == pytest.approx(0.2, rel=0.1)
    independent = answer_kl(aligned.model, start, pairs_file)
    assert independent.value == pytest.approx(0.2, rel=0.1, abs=3 * independent.standard_error)


def test_a_budget_that_the_data_do_not_ask_for_is_told_of(start, pairs_file, tmp_path):
    told = Console(file=io.StringIO(), width=400)
    run("dpo", start, pairs_file, tmp_path / "run", told, **SHORT, kl_budget=500.0, kl_every=1, max_steps=14)
    assert len(steps_of(tmp_path / "run")) == 14
    assert "Nothing held the policy back: the data did not ask for more." in told.file.getvalue()


def test_corrective_steps_are_bounded_and_told_of(far, start, pairs_file, tmp_path):
    told = Console(file=io.StringIO(), width=400)
    given = {"reference": str(start), "kl_budget": 0.001, "kl_every": 2, "max_steps": 4}
    run("dpo", far, pairs_file, tmp_path / "run", told, **SHORT | given)
    steps = steps_of(tmp_path / "run")
    assert len(steps) == 6
    assert "after 2 corrective steps. That misses it by +" in told.file.getvalue()
    assert re.findall(r"training (\d+/\d+) ", told.file.getvalue())[-3:] == ["4/4", "5/5", "6/6"]
    assert [row["learning_rate"] for row in steps[-2:]] == [KlBounds.LEAST_RATE * 1e-3] * 2
    assert [row["step"] for row in measurements(tmp_path / "run")] == [0, 2, 4, 6]


def test_rows_of_metrics_have_the_weight_and_what_was_measured_last(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", **SHORT, kl_budget=0.2, kl_every=2, max_steps=4)
    steps = {row["step"]: row for row in steps_of(tmp_path / "run")}
    measured = {row["step"]: row for row in measurements(tmp_path / "run")}
    assert steps[1]["weight_kl"] == 0.1
    assert MEASURED not in steps[1]
    for name in (MEASURED, f"{MEASURED}_se", "weight_kl"):
        assert steps[3][name] == measured[2][name]
    row = steps[4]
    assert row["loss"] == pytest.approx(row["loss_dpo"] + row["weight_kl"] * row["loss_kl"], rel=1e-6)


def test_a_penalty_that_is_written_out_begins_at_its_own_weight_and_is_there_once(start, pairs_file, tmp_path):
    run("dpo + 0.3*kl", start, pairs_file, tmp_path / "run", **SHORT, kl_budget=0.2, kl_every=2, max_steps=2)
    (first, _) = steps_of(tmp_path / "run")
    assert first["weight_kl"] == 0.3
    assert first["loss"] == pytest.approx(first["loss_dpo"] + 0.3 * first["loss_kl"], rel=1e-6)


def test_evaluations_have_the_objective_as_it_was_given(start, pairs_file, tmp_path):
    given = SHORT | {"holdout": 16, "kl_budget": 0.05, "kl_every": 1, "max_steps": 4}
    run("dpo", start, pairs_file, tmp_path / "run", **given)
    evaluations = [row for row in RunDirectory(tmp_path / "run").read_metrics() if row.get("split") == "eval"]
    assert evaluations[0]["step"] == 0
    assert evaluations[-1]["step"] == steps_of(tmp_path / "run")[-1]["step"]
    assert not any("loss_kl" in row for row in evaluations)


@pytest.mark.parametrize("settings", [{"objective": "simpo"}, {"objective": "kto"}, {"lora_rank": 2}], ids=str)
def test_objectives_without_a_reference_labelled_answers_and_adapters_have_budgets_too(
    settings, start, pairs_file, tmp_path
):
    given = {"objective": "dpo", "kl_budget": 0.1, "kl_every": 2, "max_steps": 4} | SHORT | settings
    run(start=start, pairs=pairs_file, out=tmp_path / "run", **given)
    last = measurements(tmp_path / "run")[-1]
    assert last[MEASURED] > 0
    assert last["weight_kl"] != 0.1


@pytest.mark.parametrize("stop", [3, 5, 8], ids=["between measurements", "before the end", "among the corrections"])
def test_a_run_with_a_budget_stopped_and_resumed_is_bit_identical_to_one_that_was_not(
    stop, far, start, pairs_file, tmp_path, monkeypatch
):
    given = SHORT | {"reference": str(start), "kl_budget": 0.01, "kl_every": 2, "max_steps": 6, "trust_region": 0.1}
    given |= {"trust_region_every": 2, "holdout": 8}
    run("dpo", far, pairs_file, tmp_path / "whole", **given)
    assert len(steps_of(tmp_path / "whole")) > 8
    with monkeypatch.context() as patch:
        stop_after(stop, patch)
        with pytest.raises(StoppedError):
            run("dpo", far, pairs_file, tmp_path / "cut", **given)
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_resumed_run_that_forgot_its_controller_is_another_run(start, pairs_file, tmp_path, monkeypatch):
    given = SHORT | {"kl_budget": 0.05, "kl_every": 2}
    run("dpo", start, pairs_file, tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, tmp_path / "cut", **given)
    monkeypatch.setattr(KlBounds, "take_up", lambda *_: None)
    resume(tmp_path / "cut")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_the_controller_of_the_literature_keeps_a_budget_too(start, pairs_file, tmp_path):
    """Its weight follows from what was measured alone: 0.1 times (1 + 0.1 clip(kl / budget - 1)) for each step."""
    given = {"kl_budget": 0.05, "kl_control": "ziegler", "kl_every": 2, "max_steps": 8}
    run("dpo", start, pairs_file, tmp_path / "run", **SHORT | given)
    weight = 0.1
    for row in measurements(tmp_path / "run"):
        weight *= (1 + 0.1 * min(max(row[MEASURED] / 0.05 - 1, -0.2), 0.2)) ** 2
        assert row["weight_kl"] == pytest.approx(weight)
        assert all(
            step["weight_kl"] == row["weight_kl"]
            for step in steps_of(tmp_path / "run")
            if step["step"] == row["step"] + 1
        )


# A limit


def test_a_run_beyond_its_limit_stops_without_a_result(start, pairs_file, tmp_path):
    given = SHORT | {"max_kl": 0.1, "kl_every": 2, "max_steps": 20}
    with pytest.raises(
        KilterError, match=r"nats .standard error .* after step \d+, of at most 0.1. There is no result"
    ):
        run("dpo", start, pairs_file, tmp_path / "run", **given)
    *within, last = measurements(tmp_path / "run")
    assert all(row[MEASURED] <= 0.1 for row in within)
    assert last[MEASURED] > 0.1
    assert last["step"] == len(steps_of(tmp_path / "run")) < 20
    assert not (tmp_path / "run" / "model").exists()
    assert [c.step for c in Checkpoints(tmp_path / "run" / "checkpoints")] == [last["step"]]
    with pytest.raises(KilterError, match="There is no result"):
        resume(tmp_path / "run")


def test_a_run_beyond_its_limit_rolls_back_to_the_last_checkpoint_within(start, pairs_file, tmp_path):
    told = Console(file=io.StringIO(), width=400)
    given = SHORT | {"max_kl": 0.2, "on_max_kl": "rollback", "kl_every": 1, "max_steps": 20, "keep": 1, "holdout": 8}
    aligned = run("dpo", start, pairs_file, tmp_path / "run", told, **given)
    *within, last = measurements(tmp_path / "run")
    assert last[MEASURED] > 0.2 >= within[-1][MEASURED]
    checkpoint = Checkpoints(tmp_path / "run" / "checkpoints").at(within[-1]["step"])
    ours, theirs = weights(aligned.model), weights(checkpoint / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    independent = answer_kl(aligned.model, start, pairs_file)
    assert independent.value <= 0.2 + 3 * independent.standard_error
    assert f"the model of step {within[-1]['step']} is the result" in told.file.getvalue()
    assert f"{within[-1][MEASURED]:.3f} nats" in told.file.getvalue().splitlines()[-1]


def test_where_no_measurement_was_within_there_is_nothing_to_roll_back_to(far, start, pairs_file, tmp_path):
    given = SHORT | {"reference": str(start), "max_kl": 0.01, "on_max_kl": "rollback"}
    with pytest.raises(KilterError, match="There is no result"):
        run("dpo", far, pairs_file, tmp_path / "run", **given)
    assert measurements(tmp_path / "run")[-1]["step"] == 0


def test_a_run_within_its_limit_is_the_run_without_one(start, pairs_file, tmp_path):
    """Measuring changes nothing that is trained."""
    run("dpo", start, pairs_file, tmp_path / "plain", holdout=0)
    run("dpo", start, pairs_file, tmp_path / "limited", **SHORT, max_kl=1000.0, kl_every=2)
    ours, theirs = weights(tmp_path / "limited" / "model"), weights(tmp_path / "plain" / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_rolled_back_run_that_was_interrupted_ends_the_same(start, pairs_file, tmp_path, monkeypatch):
    given = SHORT | {"max_kl": 0.2, "on_max_kl": "rollback", "kl_every": 2, "max_steps": 20, "keep": 1}
    run("dpo", start, pairs_file, tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, tmp_path / "cut", **given)
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


# Settings


def test_settings_that_contradict_each_other_are_refused():
    def refused(match, **given):
        with pytest.raises(ValidationError, match=match):
            AlignConfig(model="m", data="d", out="o", holdout=4, **given)

    refused("kl_control says how kl_budget is kept", max_kl=1, kl_control="ziegler")
    refused("reference is none", kl_budget=1, reference="none")
    refused("on_max_kl says what happens beyond max_kl", kl_budget=1, on_max_kl="rollback")
    refused("kl_every is for a bound", kl_every=3)
    refused("kl_samples is for a bound", kl_samples=3)
    refused("allow more", kl_budget=5, max_kl=5)
    refused("leave keep_best out", kl_budget=5, keep_best=True)
    refused("leave patience out", max_kl=5, patience=2, eval_every=1)
    refused("a reference that moves pulls elsewhere", kl_budget=5, reference_every=2)
    refused("give trust_region too", trust_region_every=2)
    refused("does not go with lora_rank", trust_region=0.1, lora_rank=2)
    with pytest.raises(ConfigError, match="has options"):
        parse("simpo").weighing("dpo", 1.0)


def test_a_mixture_weighs_a_term_that_it_has_and_adds_one_that_it_has_not():
    assert str(parse("simpo + 2*sft").weighing("sft", 0.5)) == str(parse("simpo + 0.5*sft"))
    assert str(parse("simpo").weighing(PENALTY, 0.5)) == str(parse("simpo + 0.5*kl"))


def test_a_rate_with_a_floor_stays_there_beyond_the_last_step():
    for schedule in ("linear", "cosine"):
        rates = [rate_at(step, 10, schedule=schedule, warmup=0.2, least=0.3) for step in range(14)]
        assert rates[0] == 0.5
        assert rates[1:3] == [1.0, 1.0]
        assert rates[9:] == [0.3] * 5
        assert all(a >= b for a, b in pairwise(rates[1:]))


# A trust region


def test_the_earlier_policy_is_that_of_the_last_step_that_was_a_multiple(start, pairs_file, tmp_path):
    given = {"trust_region": 0.5, "trust_region_every": 3, "save_every": "1", "keep": 9, "max_steps": 8, "holdout": 0}
    run("dpo", start, pairs_file, tmp_path / "run", **given)
    models = {c.step: c.path for c in Checkpoints(tmp_path / "run" / "checkpoints")}
    begun = weights(start)
    for step, path in models.items():
        last = step - step % 3
        wanted = weights(models[last] / "model") if last else begun
        held = load_file(path / "previous.safetensors")
        assert held.keys() == wanted.keys()
        assert all(torch.equal(held[name], wanted[name]) for name in wanted)
    zero = [row["step"] for row in steps_of(tmp_path / "run") if row["loss_trust_region"] < 1e-9]
    assert zero == [1, 4, 7]


def test_a_stronger_trust_region_lets_the_policy_less_far_away(start, pairs_file, tmp_path):
    def furthest(weight):
        out = tmp_path / f"{weight}"
        run("dpo", start, pairs_file, out, trust_region=weight, trust_region_every=50, max_steps=12, holdout=0)
        return max(row["loss_trust_region"] for row in steps_of(out))

    weak, strong = furthest(1e-6), furthest(10.0)
    assert strong < 0.5 * weak


def test_progress_is_plain_numbers(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", **SHORT, kl_budget=0.2, kl_every=2, save_every="3")
    for checkpoint in Checkpoints(tmp_path / "run" / "checkpoints"):
        progress = json.loads((checkpoint.path / "progress.json").read_text())["progress"]
        assert progress["measured_step"] == checkpoint.step - checkpoint.step % 2
        assert set(progress["controller"]) == set(KlBudget.REMEMBERED)
