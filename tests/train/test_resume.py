"""A run that was stopped and taken up again is, to the last bit, the run that never stopped."""

import dataclasses
import errno
import io
import json
import os
import re
import shutil
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM

from kilter.data.checkpoints import Checkpoints
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, RunError, StoppedError
from kilter.objectives import OBJECTIVES
from kilter.objectives.options import Positive
from kilter.train import checkpoint, loop
from kilter.train.align import align
from kilter.train.batches import shuffled_stream
from kilter.train.checkpoint import Keeper
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.optimizer import Updater
from kilter.train.sft import sft
from train.runs import SHAPE, assert_same_run, quiet, run, weights, write_pairs


def stop_after(step, monkeypatch, number=signal.SIGINT):
    """Send ourselves a signal in the middle of a step."""
    accumulate = loop.accumulate_gradient
    seen = []

    def interrupted(*args):
        seen.append(1)
        if len(seen) == step:
            os.kill(os.getpid(), number)
        return accumulate(*args)

    monkeypatch.setattr(loop, "accumulate_gradient", interrupted)


def resume(out, **settings):
    return align(AlignConfig.model_validate({"resume": out, **settings}), quiet())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "kto", "node_budget": 64},
        {"max_steps": None, "epochs": 2.3, "holdout": 0, "batch_size": 6, "schedule": "cosine"},
        {"gradient_noise": 0.01, "eval_every": 2},
        {"optimizer": "adafactor"},
        {"weights": "bfloat16", "precision": "bfloat16"},
    ],
    ids=["dpo", "kto, accumulated", "in the second epoch", "noise", "adafactor", "bfloat16 weights"],
)
def test_a_run_stopped_and_resumed_is_bit_identical_to_one_that_was_not(
    settings, start, pairs_file, tmp_path, monkeypatch
):
    given = {"objective": "dpo", "max_steps": 6} | settings
    whole = run(start=start, pairs=pairs_file, out=tmp_path / "whole", **given)
    stop_step = 13 if "epochs" in settings else 3
    with monkeypatch.context() as patch:
        stop_after(stop_step, patch)
        with pytest.raises(StoppedError, match=rf"after step {stop_step} of .*\ngo on with: kilter align --resume"):
            run(start=start, pairs=pairs_file, out=tmp_path / "cut", **given)
    assert not (tmp_path / "cut" / "model").exists()
    torch.manual_seed(12345)  # what another process would have
    resumed = resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    if whole.after is not None:
        assert (resumed.before.gap_P == whole.before.gap_P).all()
        assert (resumed.after.gap_P == whole.after.gap_P).all()


def drifting(pairs, *, beta: Positive = 0.1, seen):
    """dpo on gaps less their mean so far."""
    return -torch.nn.functional.logsigmoid(beta * (pairs.gap_P - seen))


def remembered(pairs, *, beta, seen):
    return {"seen": 0.9 * seen + 0.1 * float(pairs.gap_P.mean())}


def test_what_an_objective_remembers_is_taken_up_again_to_the_last_bit(start, pairs_file, tmp_path, monkeypatch):
    row = dataclasses.replace(
        OBJECTIVES["dpo"], loss=drifting, unit="batch", state={"seen": 0.7}, remember=remembered, at_zero=None
    )
    monkeypatch.setitem(OBJECTIVES, "drifting", row)
    given = {"objective": "0.5*drifting + 0.1*sft", "node_budget": 64, "eval_every": 2}
    run(start=start, pairs=pairs_file, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run(start=start, pairs=pairs_file, out=tmp_path / "cut", **given)
    (saved,) = Checkpoints(tmp_path / "cut" / "checkpoints")
    kept = json.loads((saved.path / "progress.json").read_text())["progress"]["objective"]
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    rows = [row for row in RunDirectory(tmp_path / "whole").read_metrics() if "split" not in row]
    assert kept == {"drifting.seen": rows[2]["drifting.seen"]}
    # No number of these is the same: a run that began anew with 0.7 would be told from this one.
    assert rows[0]["drifting.seen"] == pytest.approx(0.63)
    assert len({row["drifting.seen"] for row in rows}) == 6


def test_all_objectives_that_remember_are_taken_up_again_to_the_last_bit(start, pairs_file, tmp_path, monkeypatch):
    remembering = [name for name, row in OBJECTIVES.items() if row.state]
    assert len(remembering) > 1
    given = {"objective": " + ".join(remembering), "eval_every": 2}
    run(start=start, pairs=pairs_file, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run(start=start, pairs=pairs_file, out=tmp_path / "cut", **given)
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    first, *_, last = (row for row in RunDirectory(tmp_path / "whole").read_metrics() if "split" not in row)
    for name in remembering:
        assert any(first[f"{name}.{key}"] != last[f"{name}.{key}"] for key in OBJECTIVES[name].state)


def nothing(*_):
    pass


FORGOTTEN = {
    "the state of random numbers": lambda patch: patch.setattr(checkpoint, "set_random_state", nothing),
    "saving the state of random numbers": lambda patch: patch.setattr(
        checkpoint, "random_state", lambda: {"cpu": torch.Generator().manual_seed(0).get_state()}
    ),
    "the optimiser's state": lambda patch: patch.setattr(Updater, "load_state", nothing),
    "which examples have been": lambda patch: patch.setattr(
        loop, "shuffled_stream", lambda count, seed, taken: shuffled_stream(count, seed)
    ),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_resumed_run_that_forgot_something_is_another_run(what, start, pairs_file, tmp_path, monkeypatch):
    """The comparison that every test here rests on would find it."""
    random = {"lora_rank": 4, "lora_dropout": 0.3}
    run("dpo", start, pairs_file, tmp_path / "whole", **random)
    FORGOTTEN[what](monkeypatch)
    stopped_run(start, pairs_file, tmp_path / "cut", monkeypatch, **random)
    resume(tmp_path / "cut")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_sigterm_saves_too_and_fine_tuning_from_scratch_resumes(pairs_file, tmp_path, monkeypatch):
    given = {"data": pairs_file, "from_scratch": SHAPE, "max_steps": 6, "holdout": 8, "batch_size": 8}
    sft(SftConfig(out=tmp_path / "whole", **given), quiet())
    with monkeypatch.context() as patch:
        stop_after(4, patch, signal.SIGTERM)
        with pytest.raises(StoppedError) as stopped:
            sft(SftConfig(out=tmp_path / "cut", **given), quiet())
    assert stopped.value.signal == signal.SIGTERM
    sft(SftConfig.model_validate({"resume": tmp_path / "cut"}), quiet())
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_run_may_be_stopped_and_resumed_again_and_again(start, pairs_file, tmp_path, monkeypatch):
    run("dpo", start, pairs_file, tmp_path / "whole")
    for already in range(6):
        with monkeypatch.context() as patch:
            stop_after(1, patch)
            with pytest.raises(StoppedError, match=f"after step {already + 1} of 6"):
                run("dpo", start, pairs_file, tmp_path / "cut", resume=tmp_path / "cut")
    resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_second_interrupt_stops_at_once(start, pairs_file, tmp_path, monkeypatch):
    accumulate = loop.accumulate_gradient

    def interrupted_twice(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return accumulate(*args)

    monkeypatch.setattr(loop, "accumulate_gradient", interrupted_twice)
    before = signal.getsignal(signal.SIGINT)  # to be ignored, in what a shell began in the background
    with pytest.raises(KeyboardInterrupt):
        run("dpo", start, pairs_file, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before


def stopped_run(start, pairs_file, out, monkeypatch, **settings):
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, out, **settings)
    return out


def test_resuming_refuses_another_setting_naming_it_and_takes_harmless_ones(start, pairs_file, tmp_path, monkeypatch):
    out = stopped_run(start, pairs_file, tmp_path / "run", monkeypatch)
    for name, value, was in (
        ("beta", 0.3, "None"),
        ("learning_rate", 1e-5, "0.001"),
        ("objective", "ipo", "'dpo'"),
        ("objective", "dpo + 0.1*sft", "'dpo'"),
        ("reference_mix", 0.5, "None"),
    ):
        told = re.escape(f"{name} was {was} and now is {value!r}; leave that as it was")
        with pytest.raises(ConfigError, match=told):
            resume(out, **{name: value})
    resume(out, save_every="1", keep=3, eval_every=2)


def test_resuming_refuses_other_data_naming_it(start, pairs_file, tmp_path, monkeypatch):
    mine = shutil.copy(pairs_file, tmp_path / "mine.jsonl")
    out = stopped_run(start, mine, tmp_path / "run", monkeypatch)
    write_pairs(mine, dishes=9)
    with pytest.raises(ConfigError, match=r"the SHA-256 of the data was [0-9a-f]{64} when it began, and is"):
        resume(out)
    resume(out, data=pairs_file)


def test_a_run_that_replaced_another_resumes(start, pairs_file, tmp_path, monkeypatch):
    run("dpo", start, pairs_file, tmp_path / "run", max_steps=1)
    stopped_run(start, pairs_file, tmp_path / "run", monkeypatch, overwrite=True)
    assert resume(tmp_path / "run").model.is_dir()


@pytest.mark.parametrize(
    ("what", "named"),
    [("weights", "the reference"), ("template", "the chat template"), ("tokenizer", "the tokenizer")],
)
def test_resuming_refuses_another_reference_or_text_side(what, named, start, pairs_file, tmp_path, monkeypatch):
    """Also where it lies where the first one lay."""
    mine = tmp_path / "start"
    shutil.copytree(start, mine)
    out = stopped_run(mine, pairs_file, tmp_path / "run", monkeypatch)
    if what == "weights":
        model = AutoModelForCausalLM.from_pretrained(mine)
        model.model.norm.weight.data[0] += 1e-6
        model.save_pretrained(mine)
    elif what == "tokenizer":
        tokenizer = json.loads((mine / "tokenizer.json").read_text())
        tokenizer["model"]["merges"].pop()
        (mine / "tokenizer.json").write_text(json.dumps(tokenizer))
    else:
        template = (mine / "chat_template.jinja").read_text()
        (mine / "chat_template.jinja").write_text(template.replace("Human", "Person"))
    with pytest.raises(ConfigError, match=rf"cannot be gone on with: the SHA-256 of {named} was"):
        resume(out)


def test_a_damaged_checkpoint_is_passed_over_loudly_for_the_one_before(start, pairs_file, tmp_path, monkeypatch):
    run("dpo", start, pairs_file, tmp_path / "whole")
    out = stopped_run(start, pairs_file, tmp_path / "run", monkeypatch, save_every="1")
    newest = out / "checkpoints" / "step-000002" / "training.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    console = quiet()
    align(AlignConfig.model_validate({"resume": out}), console)
    said = console.file.getvalue()
    assert re.search(r"step-000002 is not whole: training.safetensors is not what was written", said)
    assert "after step 1" in said
    assert_same_run(out, tmp_path / "whole")


def test_a_damaged_checkpoint_does_not_push_out_whole_ones(start, pairs_file, tmp_path, monkeypatch):
    out = tmp_path / "run"
    for already, settings in ((4, {"save_every": "2"}), (1, {"save_every": "1", "keep": 1, "resume": out})):
        with monkeypatch.context() as patch:
            stop_after(already, patch)
            with pytest.raises(StoppedError):
                run("dpo", start, pairs_file, out, **settings)
        kept = list(Checkpoints(out / "checkpoints"))
        if already == 4:
            (kept[-1].path / "training.safetensors").write_bytes(b"")
    assert [c.step for c in kept] == [3]
    resume(out)
    run("dpo", start, pairs_file, tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")


def test_without_a_whole_checkpoint_a_run_begins_again(start, pairs_file, tmp_path, monkeypatch):
    run("dpo", start, pairs_file, tmp_path / "whole")
    out = stopped_run(start, pairs_file, tmp_path / "run", monkeypatch)
    for saved in Checkpoints(out / "checkpoints"):
        (saved.path / "manifest.json").unlink()
    resume(out)
    assert_same_run(out, tmp_path / "whole")


def test_resume_begins_a_run_where_there_is_none_and_refuses_a_finished_one(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", resume=tmp_path / "run")
    with pytest.raises(RunError, match="is finished, and its result is in"):
        resume(tmp_path / "run")


def test_checkpoints_come_when_due_and_the_oldest_go(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", save_every="2", max_steps=9, keep=3)
    assert [c.step for c in Checkpoints(tmp_path / "run" / "checkpoints")] == [4, 6, 8]


def test_a_checkpoints_model_loads_with_transformers(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", save_every="2")
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "step-000004" / "model")


def test_the_best_model_is_the_result_and_waiting_ends(start, pairs_file, tmp_path):
    """With so high a rate the held-out loss soon rises."""
    given = {"learning_rate": 0.3, "schedule": "constant", "warmup": 0.0, "max_steps": 30, "keep": 1}
    aligned = run("ipo", start, pairs_file, tmp_path / "run", eval_every=1, patience=3, **given)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    losses = {row["step"]: row["loss"] for row in rows if row.get("split") == "eval"}
    best = min(losses, key=losses.get)
    assert max(losses) == best + 3 < 30
    kept = tmp_path / "run" / "checkpoints" / f"step-{best:06d}" / "model"
    ours, theirs = weights(aligned.model), weights(kept)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    reported = next(row for row in rows if row["step"] == best and row.get("split") == "eval")
    assert aligned.after.gap_P.mean() == pytest.approx(reported["gap"], rel=1e-6)


def test_metrics_that_cannot_be_written_end_a_run_that_can_be_taken_up(start, pairs_file, tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, line):
            if '"step": 4' in line:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
                return file.write(line)

    run("dpo", start, pairs_file, tmp_path / "whole")
    real = RunDirectory.append_metrics

    def append(self, row):
        self._metrics = Full()
        real(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", append)
        with pytest.raises(
            RunError,
            match=r"^cannot save metrics in .*/run: No space left on device; there is [\d.]+ [kMGT]B free; "
            r"step-000002 is whole; make room or mend the disk, and take the run up again with --resume$",
        ):
            run("dpo", start, pairs_file, tmp_path / "run", save_every="2")
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_where_the_best_model_is_damaged_the_last_is_the_result_and_that_is_said(
    start, pairs_file, tmp_path, monkeypatch
):
    """A flipped bit in its weights would load without complaint."""
    given = {"learning_rate": 1e-2, "max_steps": 8, "keep": 1, "eval_every": 1}
    contrary = write_pairs(tmp_path / "pairs.jsonl", contrary=16)
    real = Keeper.take_best

    def damaged(keeper, progress, console):
        assert progress.best_step < progress.step
        path = keeper.checkpoints.at(progress.best_step) / "model" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return real(keeper, progress, console)

    run("dpo", start, contrary, tmp_path / "last", **given)
    monkeypatch.setattr(Keeper, "take_best", damaged)
    console = quiet()
    run("dpo", start, contrary, tmp_path / "run", console, keep_best=True, **given)
    assert re.search(
        r"warning: .*step-00000\d, of the best evaluation, is not whole: model/model.safetensors is not what was "
        r"written .*; the last model is the result",
        console.file.getvalue(),
    )
    ours, theirs = weights(tmp_path / "run" / "model"), weights(tmp_path / "last" / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_every_checkpoint_names_the_reference(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", save_every="3")
    (saved,) = Checkpoints(tmp_path / "run" / "checkpoints")
    facts = json.loads((saved.path / "progress.json").read_text())
    manifest = RunDirectory(tmp_path / "run").read_manifest()
    assert facts["reference_sha256"] == manifest["reference_sha256"]
    assert len(facts["reference_sha256"]) == 64


def test_a_smaller_node_budget_that_would_leave_out_rows_is_refused(start, pairs_file, tmp_path, monkeypatch):
    """It may change otherwise; with fewer rows the same steps would see other examples."""
    mine = tmp_path / "mine.jsonl"
    long = {"prompt": "Dish " + "salty " * 30, "chosen": " I love it.", "rejected": " I hate it."}
    mine.write_text(json.dumps(long) + "\n" + pairs_file.read_text())
    out = stopped_run(start, mine, tmp_path / "run", monkeypatch, on_overflow="drop")
    with pytest.raises(ConfigError, match="the number of examples was 49 when it began, and is 48 now"):
        resume(out, node_budget=32)
    resume(out, node_budget=128)


def test_the_base_of_an_adapter_may_not_change_whatever_the_reference_is(start, pairs_file, tmp_path, monkeypatch):
    mine = tmp_path / "start"
    shutil.copytree(start, mine)
    given = {"lora_rank": 2, "reference": str(start)}
    out = stopped_run(mine, pairs_file, tmp_path / "run", monkeypatch, **given)
    model = AutoModelForCausalLM.from_pretrained(mine)
    model.model.norm.weight.data[0] += 1e-6
    model.save_pretrained(mine)
    with pytest.raises(ConfigError, match="the SHA-256 of the model it starts from was"):
        resume(out)


def test_a_checkpoint_is_no_run(start, pairs_file, tmp_path, monkeypatch):
    out = stopped_run(start, pairs_file, tmp_path / "run", monkeypatch)
    with pytest.raises(RunError, match=r"manifest\.json is not that of a run; give --resume the directory"):
        resume(out / "checkpoints" / "step-000002", data=pairs_file, model=str(start))
