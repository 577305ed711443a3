"""What a run's reference is, what is kept of its scores, and that no run takes another's."""

import json
import re
import shutil
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from kilter.data.checkpoints import Checkpoints
from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, ModelError, StoppedError
from kilter.measure.config import ScoreConfig
from kilter.measure.score import score
from kilter.model.fingerprint import model_fingerprint
from kilter.model.loading import load_scorer, load_tokenizer
from kilter.model.score_store import MAGIC
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import Encoder
from kilter.tokens.tree import common_prefix
from kilter.train import loop
from kilter.train import weights as weights_module
from kilter.train.config import AlignConfig
from train.processes import kilter
from train.runs import assert_same_run, quiet, run, weights, write_pairs
from train.test_resume import resume, stop_after


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def no_reference(monkeypatch):
    """From here on a model that stands beside another, or is loaded beside it, raises."""

    def refuse(*_):
        raise AssertionError("the reference was run")

    monkeypatch.setattr(Scorer, "beside", refuse)


def losses(directory):
    return [row["loss"] for row in RunDirectory(directory).read_metrics()]


@pytest.mark.parametrize("objective", ["dpo", "kto", "0.1*bt_kl + ld_dpo"])
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


CHANGED = {
    "beta": {"beta": 0.5},
    "objective": {"objective": "ipo + 0.2*ld_dpo"},
    "learning rate": {"learning_rate": 3e-4},
    "order": {"seed": 7},
    "cut": {"batch_size": 5, "node_budget": 64},
    "epochs": {"epochs": 2.5},
}


def test_whatever_is_changed_a_second_run_computes_nothing_again(start, pairs_file, tmp_path, cache, monkeypatch):
    given = {"objective": "dpo", "cache_dir": cache, "holdout": 0, "max_steps": None, "epochs": 1}
    first = run(start=start, pairs=pairs_file, out=tmp_path / "first", **given).reference_scores
    assert first.misses > 0
    assert first.computed > first.misses  # prompts too
    no_reference(monkeypatch)
    monkeypatch.setattr(weights_module, "load_scorer", only_once(weights_module.load_scorer))
    for name, settings in CHANGED.items():
        counts = run(start=start, pairs=pairs_file, out=tmp_path / name, **given | settings).reference_scores
        assert (counts.misses, counts.computed, counts.computed_unkept) == (0, 0, 0)
        assert counts.hits >= first.hits + first.misses


def only_once(load):
    """For each run the policy, and no other model, is loaded."""
    seen = []

    def loaded(name, **settings):
        seen.append(name)
        assert len(seen) <= len(CHANGED)
        return load(name, **settings)

    return loaded


def test_answers_cut_on_the_right_and_one_new_row_cost_that_row_alone(start, tmp_path, cache):
    rows = [json.loads(line) for line in write_pairs(tmp_path / "pairs.jsonl").read_text().splitlines()]
    given = {"cache_dir": cache, "holdout": 0, "max_steps": None, "epochs": 1, "style": "plain"}
    run("dpo", start, tmp_path / "pairs.jsonl", tmp_path / "first", **given)
    new = {"prompt": "Dish 99 is new.", "chosen": " I love it.", "rejected": " I hate it."}
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, new]))
    counts = run("dpo", start, tmp_path / "more.jsonl", tmp_path / "second", **given).reference_scores
    encoded = Encoder(load_tokenizer(str(start)), "plain").encode_pairs(read_pairs(tmp_path / "more.jsonl").rows).rows
    chosen, rejected = (side.ids for side in (encoded[-1].chosen, encoded[-1].rejected))
    shared = common_prefix(chosen, rejected)
    assert counts.computed == len(chosen) + len(rejected) - shared
    assert counts.misses == counts.computed - encoded[-1].chosen.first


def test_with_hidden_states_a_second_run_runs_no_reference_at_all(start, pairs_file, tmp_path, cache, monkeypatch):
    """Held-out rows and their exact KL included."""
    given = {"cache_dir": cache, "cache": "hidden", "eval_every": 2}
    first = run("dpo + 0.1*kl", start, pairs_file, tmp_path / "first", **given)
    no_reference(monkeypatch)
    second = run("bt_kl", start, pairs_file, tmp_path / "second", beta=0.3, **given)
    counts = second.reference_scores
    assert (counts.misses, counts.computed, counts.computed_unkept) == (0, 0, 0)
    assert counts.hits > 0
    np.testing.assert_allclose(second.before.gap_P, first.before.gap_P, atol=1e-5)
    assert second.after.chosen.kl_policy_reference_A.mean() > 1e-4


@pytest.mark.parametrize("kind", ["log-probs", "hidden"])
def test_a_run_resumed_over_its_store_is_bit_identical_to_one_that_was_not_stopped(
    kind, start, pairs_file, tmp_path, monkeypatch
):
    given = {"cache": kind, "epochs": 2, "max_steps": None, "eval_every": 3}
    run("dpo", start, pairs_file, tmp_path / "whole", cache_dir=tmp_path / "one", **given)
    for step in (2, 8):  # before all is kept, and in the second epoch
        cut = tmp_path / f"cut-{step}"
        with monkeypatch.context() as patch:
            stop_after(step, patch)
            with pytest.raises(StoppedError):
                run("dpo", start, pairs_file, cut, cache_dir=tmp_path / f"cache-{step}", **given)
        torch.manual_seed(12345)
        resume(cut)
        assert_same_run(cut, tmp_path / "whole")


def test_what_was_found_and_computed_is_printed_and_in_the_manifest(start, pairs_file, tmp_path, cache):
    console = quiet()
    counts = run("dpo", start, pairs_file, tmp_path / "run", console, cache_dir=cache).reference_scores
    manifest = RunDirectory(tmp_path / "run").read_manifest()
    facts = manifest["reference_scores"]
    assert facts["misses"] == counts.misses > 0
    assert facts["bytes"] == sum(file.stat().st_size for file in cache.rglob("*.scores")) > 0
    assert facts["path"] == str(cache / manifest["reference_sha256"])
    assert re.search(
        rf"reference scores: {counts.hits:,} tokens found, {counts.misses:,} not; the reference computed "
        rf"{counts.computed:,} tokens and {counts.computed_unkept:,} for what is not kept; kept: [\d,]+ tokens, ",
        console.file.getvalue(),
    )


def test_the_fingerprint_is_in_the_manifest_and_in_every_checkpoint(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", save_every="2")
    named = RunDirectory(tmp_path / "run").read_manifest()["reference_sha256"]
    assert named == model_fingerprint(load_scorer(str(start)))
    for checkpoint in Checkpoints(tmp_path / "run" / "checkpoints"):
        assert json.loads((checkpoint.path / "progress.json").read_text())["reference_sha256"] == named


@pytest.mark.parametrize("kind", ["none", "log-probs"])
def test_going_on_with_another_reference_is_refused_with_both_fingerprints(
    kind, start, pairs_file, tmp_path, cache, monkeypatch
):
    other = run("dpo", start, pairs_file, tmp_path / "other", max_steps=1).model
    given = {"cache": kind, "cache_dir": cache}
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, tmp_path / "run", **given)
    was, now = (model_fingerprint(load_scorer(str(path))) for path in (start, other))
    with pytest.raises(ConfigError, match=f"the SHA-256 of the reference was {was} when it began, and is {now} now"):
        resume(tmp_path / "run", reference=str(other))
    resume(tmp_path / "run", cache="log-probs" if kind == "none" else "none", cache_dir=tmp_path / "elsewhere")


def test_another_model_is_loaded_once_and_then_known_by_its_files(start, pairs_file, tmp_path, cache, monkeypatch):
    other = run("dpo", start, pairs_file, tmp_path / "other", max_steps=2).model
    given = {"reference": str(other), "cache_dir": cache, "holdout": 0}
    loaded, load = [], weights_module.load_scorer

    def counted(name, **settings):
        loaded.append(name)
        return load(name, **settings)

    monkeypatch.setattr(weights_module, "load_scorer", counted)
    first = run("dpo", start, pairs_file, tmp_path / "first", **given).model
    assert loaded == [str(start), str(other)]
    second = run("dpo", start, pairs_file, tmp_path / "second", **given).model
    assert loaded == [str(start), str(other), str(start)]
    assert all(torch.equal(ours, weights(second)[name]) for name, ours in weights(first).items())
    # The same size, and other weights.
    (file,) = other.glob("*.safetensors")
    tensors = weights(other)
    tensors["model.norm.weight"] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})
    counts = run("dpo", start, pairs_file, tmp_path / "third", **given).reference_scores
    assert counts.hits < counts.misses


def test_a_reference_whose_files_changed_while_the_run_went_on_is_refused(
    start, pairs_file, tmp_path, cache, monkeypatch
):
    mine = shutil.copytree(start, tmp_path / "mine")
    given = {"cache_dir": cache, "holdout": 0, "max_steps": 2}
    run("dpo", mine, pairs_file, tmp_path / "first", **given)
    more = write_pairs(tmp_path / "more.jsonl", dishes=20)
    accumulate = loop.accumulate_gradient

    def changed(*args):
        tensors = weights(mine)
        tensors["model.norm.weight"] += 0.5
        save_file(tensors, mine / "model.safetensors", metadata={"format": "pt"})
        return accumulate(*args)

    monkeypatch.setattr(loop, "accumulate_gradient", changed)
    with pytest.raises(ModelError, match=r"are of the reference [0-9a-f]{64}, and the model that was loaded is"):
        run("dpo", mine, more, tmp_path / "second", **given)


def test_the_references_that_have_names(start, pairs_file, tmp_path, cache):
    given = {"cache_dir": cache, "max_steps": 2}
    run("dpo", start, pairs_file, tmp_path / "default", **given)
    run("dpo", start, pairs_file, tmp_path / "start", reference="start", **given)
    assert losses(tmp_path / "start") == losses(tmp_path / "default")
    with pytest.raises(ConfigError, match="reference is adapter-off, and all weights are trained here; leave it out"):
        run("dpo", start, pairs_file, tmp_path / "run", reference="adapter-off", **given)
    with pytest.raises(ConfigError, match=r"'dpo' needs a reference, and reference is none; leave.*simpo, orpo, cpo"):
        run("dpo", start, pairs_file, tmp_path / "run", reference="none", **given)
    free = run("simpo", start, pairs_file, tmp_path / "simpo", reference="none", **given)
    assert free.reference_scores is None
    manifest = RunDirectory(tmp_path / "simpo").read_manifest()
    assert (manifest["reference"], manifest["reference_sha256"]) == (None, None)


def test_an_adapters_base_shares_its_scores_with_the_model_that_it_is(start, pairs_file, tmp_path, cache):
    """A run of all weights, a fresh adapter, and an adapter gone on with against its base: one reference."""
    given = {"cache_dir": cache, "holdout": 0, "max_steps": None, "epochs": 1}
    run("dpo", start, pairs_file, tmp_path / "whole", **given)
    for name, reference in (("fresh", None), ("named", "adapter-off")):
        counts = run("dpo", start, pairs_file, tmp_path / name, lora_rank=2, reference=reference, **given)
        assert counts.reference_scores.misses == 0
    adapter = tmp_path / "fresh" / "model"
    went_on = run("dpo", adapter, pairs_file, tmp_path / "on", reference="adapter-off", **given)
    assert went_on.reference_scores.misses == 0
    from_there = run("dpo", adapter, pairs_file, tmp_path / "from there", **given)
    assert from_there.reference_scores.hits < from_there.reference_scores.misses
    against_it = run("dpo", start, pairs_file, tmp_path / "against", reference=str(adapter), **given)
    assert against_it.reference_scores.misses == 0


def test_of_a_reference_that_moves_or_is_split_nothing_is_kept(start, pairs_file, tmp_path, cache):
    moved = run("dpo", start, pairs_file, tmp_path / "run", reference_every=2, cache_dir=cache)
    assert moved.reference_scores is None
    assert not list(cache.rglob("*.scores"))
    for settings, why in (({"reference_every": 2}, "that moves are old the step after"), ({"shard": True}, "by shard")):
        with pytest.raises(ValidationError, match=why):
            AlignConfig(model="m", data="d", out="o", cache="log-probs", **settings)
        assert AlignConfig(model="m", data="d", out="o", **settings).keeps == "none"
    assert AlignConfig(model="m", data="d", out="o").keeps == "log-probs"


@pytest.mark.parametrize("kind", ["log-probs", "hidden"])
def test_scores_filled_ahead_are_all_that_a_run_asks_for(kind, start, pairs_file, tmp_path, cache, monkeypatch):
    given = {"model": str(start), "data": pairs_file, "cache": kind, "cache_dir": cache}
    score(ScoreConfig(last=20, **given), quiet())
    console = quiet()
    plain = score(ScoreConfig(**given | {"cache": "none"}), quiet())
    filled = score(ScoreConfig(**given), console)
    np.testing.assert_allclose(filled.gap_P, plain.gap_P, atol=1e-5)
    hits = re.search(r"reference scores: ([\d,]+) tokens found, ([\d,]+) not;", console.file.getvalue())
    assert all(int(count.replace(",", "")) > 0 for count in hits.groups())
    no_reference(monkeypatch)
    holdout = {"holdout": 16 if kind == "hidden" else 0, "max_steps": None, "epochs": 1}
    counts = run("dpo", start, pairs_file, tmp_path / "run", cache=kind, cache_dir=cache, **holdout).reference_scores
    assert (counts.misses, counts.computed, counts.computed_unkept) == (0, 0, 0)


def test_a_reference_scored_beside_a_model_is_the_one_whose_scores_are_kept(start, pairs_file, tmp_path, cache):
    other = run("dpo", start, pairs_file, tmp_path / "other", max_steps=2).model
    given = {"model": str(other), "reference": str(start), "data": pairs_file}
    plain = score(ScoreConfig(**given), quiet())
    filled = score(ScoreConfig(cache="hidden", cache_dir=cache, **given), quiet())
    np.testing.assert_allclose(filled.gap_P, plain.gap_P, atol=1e-5)
    np.testing.assert_allclose(filled.chosen.kl_policy_reference_A, plain.chosen.kl_policy_reference_A, atol=1e-5)
    assert [path.name for path in cache.iterdir()] == [model_fingerprint(load_scorer(str(start)))]


def test_a_run_killed_while_it_fills_leaves_all_but_the_batch_in_flight(start, tmp_path, cache):
    """The real command line, killed between and within batches again and again, ends as one that never was."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", dishes=20)
    flags = {"model": start, "data": pairs, "batch-size": 4, "learning-rate": 1e-3, "save-every": 4, "epochs": 2}
    command = ["align", *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]
    whole = kilter(
        [*command, "--resume", str(tmp_path / "whole"), "--cache-dir", str(tmp_path / "one")], tmp_path / "a"
    )
    whole.join()
    assert whole.exitcode == 0, (tmp_path / "a").read_text()
    command += ["--resume", str(tmp_path / "cut"), "--cache-dir", str(cache)]
    known, kills = 0, 0
    while kills < 3:
        process = kilter(command, tmp_path / "b")
        target = known + 3 * (kills + 1)
        while process.is_alive() and blocks(cache) < target:
            time.sleep(0.002)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "b").read_text()
        assert blocks(cache) >= target
        known, kills = blocks(cache), kills + 1
    process = kilter(command, tmp_path / "b")
    process.join()
    assert process.exitcode == 0, (tmp_path / "b").read_text()
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    facts = [RunDirectory(tmp_path / name).read_manifest()["reference_scores"] for name in ("whole", "cut")]
    assert facts[1]["misses"] < facts[0]["misses"]


def blocks(cache):
    """Whole blocks in all segments."""
    found = 0
    for file in cache.rglob("*/log-probs/*.scores"):
        with suppress(OSError):
            found += file.read_bytes().count(MAGIC)
    return found


def test_a_run_whose_store_is_on_a_full_disk_ends_the_same_with_one_warning(start, pairs_file, tmp_path):
    given = {"holdout": 0, "epochs": 2, "max_steps": None}
    run("dpo", start, pairs_file, tmp_path / "whole", cache_dir=tmp_path / "one", **given)
    console = quiet()
    (tmp_path / "file").write_text("")
    run("dpo", start, pairs_file, tmp_path / "run", console, cache_dir=tmp_path / "file", **given)
    assert console.file.getvalue().count("warning: no more scores can be kept in") == 1
    assert_same_run(tmp_path / "run", tmp_path / "whole")
