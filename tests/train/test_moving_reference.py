"""A reference that follows the policy: where it is after each step, what is measured against it, and what is not."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from kilter.data.checkpoints import Checkpoints
from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.measure.pairs import score_pairs
from kilter.model.loading import copy_of, load_scorer, load_tokenizer
from kilter.objectives import OBJECTIVES, PairScores
from kilter.tokens.encoding import Encoder
from kilter.train import align as align_module
from kilter.train import reference as reference_module
from kilter.train.config import AlignConfig, Moving
from kilter.train.moving_reference import MovingReference
from train.runs import assert_same_run, run
from train.test_resume import resume, stop_after


def steps_of(directory):
    return [row for row in RunDirectory(directory).read_metrics() if "split" not in row]


def test_a_reference_that_is_replaced_every_third_step_is_the_policy_at_the_steps_after(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", reference_every=3, max_steps=9, learning_rate=1e-3)
    at_the_start = [abs(row["loss"] - math.log(2)) < 1e-6 for row in steps_of(tmp_path / "run")]
    assert at_the_start == [True, False, False] * 3


def test_the_account_is_of_the_reference_that_the_run_began_with(start, pairs_file, tmp_path):
    """Also where the losses are measured against the policy of the step before."""
    aligned = run("dpo", start, pairs_file, tmp_path / "run", reference_every=1, eval_every=2)
    assert all(row["margin"] == 0 for row in steps_of(tmp_path / "run"))
    encoder = Encoder(load_tokenizer(str(start)), "auto")
    pairs = encoder.encode_pairs(read_pairs(pairs_file).rows[-16:]).rows
    wanted = score_pairs(load_scorer(str(aligned.model)), pairs, reference=load_scorer(str(start)), exact_kl=True)
    np.testing.assert_allclose(aligned.after.gap_P, wanted.gap_P, atol=1e-4)
    np.testing.assert_allclose(aligned.after.chosen.kl_policy_reference_A, wanted.chosen.kl_policy_reference_A, 1e-3)
    last = RunDirectory(tmp_path / "run").read_metrics()[-1]
    assert last["gap"] == pytest.approx(wanted.gap_P.mean(), rel=1e-4)
    loss = OBJECTIVES["dpo"].loss(
        PairScores.of_log_ratios(*(torch.from_numpy(s.log_ratio_A) for s in (wanted.chosen, wanted.rejected)))
    )
    assert last["loss"] == pytest.approx(float(loss.mean()), rel=1e-4)


def test_a_share_of_the_policy_is_mixed_in_every_second_step(start, pairs_file, tmp_path):
    """By hand from the saved models, in float64 but for the weights themselves: r = 0.3 policy + 0.7 r."""
    given = {"reference_mix": 0.3, "reference_every": 2, "save_every": "1", "keep": 9}
    run("dpo", start, pairs_file, tmp_path / "run", **given)
    begun = AutoModelForCausalLM.from_pretrained(start)
    wanted = {name: parameter.double() for name, parameter in begun.named_parameters()}
    saved = list(Checkpoints(tmp_path / "run" / "checkpoints"))
    assert [checkpoint.step for checkpoint in saved] == [1, 2, 3, 4, 5]
    for checkpoint in saved:
        model = AutoModelForCausalLM.from_pretrained(checkpoint.path / "model")
        policy = {name: parameter.double() for name, parameter in model.named_parameters()}
        if checkpoint.step % 2 == 0:
            wanted = {name: 0.3 * policy[name] + 0.7 * wanted[name] for name in wanted}
        got = load_file(checkpoint.path / "reference.safetensors")
        assert got.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(got[name].double(), wanted[name].detach(), rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize(
    "settings",
    [
        {"reference_mix": 0.2},
        {"reference_every": 2, "holdout": 0},
        {"reference_mix": 0.2, "reference_every": 2, "weights": "bfloat16", "precision": "bfloat16"},
        {"objective": "kto", "reference_mix": 0.4, "eval_every": 2, "keep_best": True},
    ],
    ids=["soft", "hard, nothing held out", "bfloat16 weights", "kto, the best"],
)
def test_a_run_stopped_and_resumed_is_bit_identical_to_one_that_was_not(
    settings, start, pairs_file, tmp_path, monkeypatch
):
    given = {"objective": "dpo"} | settings
    run(start=start, pairs=pairs_file, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run(start=start, pairs=pairs_file, out=tmp_path / "cut", **given)
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_resumed_run_that_forgot_where_its_reference_was_is_another_run(start, pairs_file, tmp_path, monkeypatch):
    run("dpo", start, pairs_file, tmp_path / "whole", reference_mix=0.2)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, tmp_path / "cut", reference_mix=0.2)
    monkeypatch.setattr(MovingReference, "load_state", lambda *_: None)
    resume(tmp_path / "cut")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_what_the_run_began_with_stays_in_manifest_and_checkpoints(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "still")
    run("dpo", start, pairs_file, tmp_path / "moving", reference_every=1, save_every="2")
    begun, moved = (RunDirectory(tmp_path / name).read_manifest()["reference_sha256"] for name in ("still", "moving"))
    assert begun == moved
    for checkpoint in Checkpoints(tmp_path / "moving" / "checkpoints"):
        assert json.loads((checkpoint.path / "progress.json").read_text())["reference_sha256"] == begun


@pytest.mark.parametrize(("holdout", "copies"), [(16, 2), (0, 1)])
def test_a_third_copy_is_kept_only_where_something_is_held_out(
    holdout, copies, start, pairs_file, tmp_path, monkeypatch
):
    made = []

    def counted(scorer):
        made.append(scorer)
        return copy_of(scorer)

    for module in (align_module, reference_module):
        monkeypatch.setattr(module, "copy_of", counted)
    run("dpo", start, pairs_file, tmp_path / "run", reference_every=2, holdout=holdout)
    assert len(made) == copies


def scorers(start, dtype=None):
    policy = load_scorer(str(start))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    reference = load_scorer(str(start))
    for scorer in (policy, reference):
        scorer.to(dtype)
    return policy, reference


def test_a_small_share_is_not_lost_in_bfloat16(start):
    """The nearest bfloat16 is the weight itself: by rounding to the nearest the reference would never move."""
    policy, reference = scorers(start, torch.bfloat16)
    (before,) = (p.detach().clone().float() for n, p in reference.named_parameters() if "embed_tokens" in n)
    moving = MovingReference(reference, policy, Moving(mix=1e-4, every=1), seed=0)
    for step in range(1, 101):
        moving.follow(step)
    (after,) = (p.detach().float() for n, p in reference.named_parameters() if "embed_tokens" in n)
    assert float((after - before).mean()) == pytest.approx(1 - (1 - 1e-4) ** 100, rel=0.05)


def test_a_share_of_one_is_the_policy_to_the_last_bit(start):
    for dtype in (torch.float32, torch.bfloat16):
        policy, reference = scorers(start, dtype)
        MovingReference(reference, policy, Moving(mix=1.0, every=1), seed=0).follow(1)
        for (name, ours), theirs in zip(reference.named_parameters(), policy.parameters(), strict=True):
            assert torch.equal(ours, theirs), name


def test_under_bfloat16_products_the_moving_reference_keeps_its_weights_and_the_other_need_not(
    start, pairs_file, tmp_path, monkeypatch
):
    made = []
    init = MovingReference.__post_init__
    monkeypatch.setattr(MovingReference, "__post_init__", lambda self: made.append(self) or init(self))
    run("dpo", start, pairs_file, tmp_path / "run", reference_mix=0.01, precision="bfloat16", max_steps=2)
    assert {p.dtype for p in made[0].scorer.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in made[0].scorer.parameters())


def test_the_settings_say_how_a_reference_moves():
    def moving(**given):
        return AlignConfig(model="m", data="d", out="o", **given).moving

    assert moving() is None
    assert moving(reference_mix=0.2) == (0.2, 1)
    assert moving(reference_every=512) == (1.0, 512)
    assert moving(reference_mix=0.6, reference_every=512) == (0.6, 512)


def test_what_has_no_reference_of_its_own_weights_is_refused(start, pairs_file, tmp_path, monkeypatch):
    without = dataclasses.replace(OBJECTIVES["dpo"], needs=frozenset(), at_zero=None)
    monkeypatch.setitem(OBJECTIVES, "without", without)
    for name in ("reference_mix", "reference_every"):
        flag = name.replace("_", "-")
        with pytest.raises(ConfigError, match=f"objective 'without' has no reference; leave --{flag} out"):
            run("without", start, pairs_file, tmp_path / "run", **{name: 1})
    adapter = run("dpo", start, pairs_file, tmp_path / "adapter", lora_rank=2, max_steps=1).model
    with pytest.raises(ConfigError, match="that of an adapter is the model without it; leave"):
        run("dpo", adapter, pairs_file, tmp_path / "run", reference_mix=0.1)
    wider = AutoModelForCausalLM.from_pretrained(start)
    wider.config.intermediate_size = 96
    type(wider)(wider.config).save_pretrained(tmp_path / "wider")
    load_tokenizer(str(start)).save_pretrained(tmp_path / "wider")
    wanted = r"another shape: model.layers.0.mlp.gate_proj.weight is \(64, 32\) in the model and \(96, 32\) in the ref"
    with pytest.raises(ConfigError, match=wanted):
        run("dpo", start, pairs_file, tmp_path / "run", reference_mix=0.1, reference=str(tmp_path / "wider"))
    assert not (tmp_path / "run").exists()


def test_another_model_may_be_the_reference_that_begins_to_move(start, pairs_file, tmp_path):
    """Its weights count, not those of the policy, until they are mixed."""
    other = run("dpo", start, pairs_file, tmp_path / "other").model
    run("dpo", start, pairs_file, tmp_path / "run", reference=str(other), reference_every=2, max_steps=3)
    first, second, third = (abs(row["margin"]) > 1e-6 for row in steps_of(tmp_path / "run"))
    assert (first, second, third) == (True, True, False)
