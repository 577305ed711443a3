"""What a run's reference is, what is kept of its scores, and that no run takes another's."""

import re

import pytest
import torch

from kilter.data.run_directory import RunDirectory
from kilter.errors import StoppedError
from kilter.model.scorer import Scorer
from train.runs import assert_same_run, quiet, run
from train.test_resume import resume, stop_after


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def no_forward(monkeypatch, but=()):
    """From here on a model that is not the policy of the run raises when it is run."""
    beside = Scorer.beside

    def refuse(self, tree):
        raise AssertionError("the reference was run")

    monkeypatch.setattr(Scorer, "beside", refuse)
    return beside


def losses(directory):
    return [row["loss"] for row in RunDirectory(directory).read_metrics()]


@pytest.mark.parametrize("objective", ["dpo", "ipo", "kto", "dpo + 0.1*kl", "bt_kl", "ld_dpo"])
@pytest.mark.parametrize("cache_kind", ["log-probs", "hidden"])
def test_a_run_with_kept_scores_has_the_losses_of_one_without(
    objective, cache_kind, start, pairs_file, tmp_path, cache
):
    given = {"eval_every": 3, "max_steps": 4}
    run(objective, start, pairs_file, tmp_path / "plain", cache="none", **given)
    for name in ("filling", "filled"):
        out = tmp_path / name
        run(objective, start, pairs_file, out, cache=cache_kind, cache_dir=cache, **given)
        assert losses(out) == pytest.approx(losses(tmp_path / "plain"), rel=1e-6, abs=1e-6)


def test_the_second_run_finds_all_and_runs_no_reference_on_training_rows(
    start, pairs_file, tmp_path, cache, monkeypatch
):
    given = {"cache_dir": cache, "holdout": 0, "max_steps": None, "epochs": 1}
    first = run("dpo", start, pairs_file, tmp_path / "first", **given).reference_scores
    assert first.hits == 0
    assert first.misses > 0
    assert first.computed > first.misses
    no_forward(monkeypatch)
    changed = [
        {"beta": 0.5},
        {"objective": "ipo"},
        {"learning_rate": 3e-4},
        {"seed": 7},
        {"batch_size": 5, "node_budget": 64},
        {"objective": "kto", "epochs": 2, "batch_size": 64, "seed": 3},
    ]
    for number, settings in enumerate(changed):
        objective = settings.pop("objective", "dpo")
        if objective == "kto":  # also answers to prompts that they were not given to, which are new
            continue
        found = run(objective, start, pairs_file, tmp_path / str(number), **given | settings).reference_scores
        assert (found.misses, found.computed, found.computed_unkept) == (0, 0, 0), settings
        assert found.hits >= first.misses


def test_with_hidden_states_a_second_run_runs_no_reference_at_all(start, pairs_file, tmp_path, cache, monkeypatch):
    given = {"cache_dir": cache, "cache": "hidden", "eval_every": 2}
    first = run("dpo + 0.1*kl", start, pairs_file, tmp_path / "first", **given)
    no_forward(monkeypatch)
    second = run("bt_kl", start, pairs_file, tmp_path / "second", beta=0.3, **given)
    assert second.reference_scores.misses == second.reference_scores.computed == 0
    assert second.reference_scores.computed_unkept == 0
    assert (first.before.gap_P == second.before.gap_P).all()


def test_a_run_resumed_over_its_store_is_bit_identical(start, pairs_file, tmp_path, monkeypatch):
    for kind in ("log-probs", "hidden"):
        given = {"cache": kind, "epochs": 2, "max_steps": None, "eval_every": 3}
        out = tmp_path / kind
        run("dpo", start, pairs_file, out / "whole", cache_dir=out / "one", **given)
        with monkeypatch.context() as patch:
            stop_after(8, patch)  # in the second epoch
            with pytest.raises(StoppedError):
                run("dpo", start, pairs_file, out / "cut", cache_dir=out / "other", **given)
        torch.manual_seed(12345)
        resume(out / "cut")
        assert_same_run(out / "cut", out / "whole")


def test_what_was_found_and_computed_is_printed_and_in_the_manifest(start, pairs_file, tmp_path, cache):
    console = quiet()
    counts = run("dpo", start, pairs_file, tmp_path / "run", console, cache_dir=cache).reference_scores
    facts = RunDirectory(tmp_path / "run").read_manifest()["reference_scores"]
    assert facts["misses"] == counts.misses > 0
    assert facts["bytes"] == sum(file.stat().st_size for file in cache.rglob("*.scores"))
    assert re.search(
        rf"reference scores: {counts.hits:,} tokens found, {counts.misses:,} not; the reference computed "
        rf"{counts.computed:,} tokens and {counts.computed_unkept:,} for what is not kept; kept: [\d,]+ tokens",
        console.file.getvalue(),
    )
