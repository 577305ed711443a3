"""Numbers that are not finite stop a run in that step, and name the rows; too little memory says what would fit."""

import json
import math
import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kilter.data.checkpoints import Checkpoints
from kilter.data.run_directory import RunDirectory
from kilter.errors import NonFiniteError, OutOfMemoryError
from kilter.model.scorer import Scorer
from kilter.train import loop, memory
from kilter.train.memory import fitting_node_budget
from train.runs import run


@pytest.fixture
def marked(pairs_file, tmp_path):
    """The pairs with a word of their own in row 5's chosen answer."""
    lines = pairs_file.read_text().splitlines()
    row = json.loads(lines[4])
    lines[4] = json.dumps(row | {"chosen": " I love it @@."})
    path = tmp_path / "marked.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def with_embedding(start, out, token, value):
    """A copy of a model whose embedding of one token is `value`."""
    shutil.copytree(start, out)
    model = AutoModelForCausalLM.from_pretrained(start)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    ids = AutoTokenizer.from_pretrained(start)(token, add_special_tokens=False).input_ids
    model.model.embed_tokens.weight.data[ids[-1]] = value
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_a_score_that_is_not_finite_stops_the_run_and_names_its_row(objective, start, marked, tmp_path):
    poisoned = with_embedding(start, tmp_path / "poisoned", " @@", math.nan)
    with pytest.raises(NonFiniteError, match=r"the reference's score is nan for .*marked\.jsonl:5;") as told:
        run(objective, poisoned, marked, tmp_path / "run", holdout=0, max_steps=None, save_every="1", seed=2)
    assert str(told.value).startswith("step 3:")
    assert len(RunDirectory(tmp_path / "run").read_metrics()) == 2
    assert [c.step for c in Checkpoints(tmp_path / "run" / "checkpoints")] == [1, 2]


def test_a_gradient_that_is_not_finite_names_the_row_it_comes_from(start, marked, tmp_path, monkeypatch):
    """Scores are finite; the backward of one row's tokens is not."""
    ids = AutoTokenizer.from_pretrained(start)(" @@", add_special_tokens=False).input_ids

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, hidden, tree):
            ctx.poisoned = bool((tree.ids_T == ids[-1]).any())
            return hidden.view_as(hidden)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (math.nan if ctx.poisoned else 1.0), None

    hidden = Scorer.hidden
    monkeypatch.setattr(Scorer, "hidden", lambda self, tree, *rest: Poison.apply(hidden(self, tree, *rest), tree))
    with pytest.raises(NonFiniteError, match=r"the gradient's norm is nan, by .*marked\.jsonl:5;"):
        run("dpo", start, marked, tmp_path / "run", holdout=0, max_steps=None)


def test_the_weights_are_not_touched_by_a_step_that_fails(start, marked, tmp_path, monkeypatch):
    poisoned = with_embedding(start, tmp_path / "poisoned", " @@", math.nan)
    kept = {}
    train_step = loop._train_step

    def watched(task, *rest):
        kept["policy"] = task.policy
        kept["before"] = [p.detach().clone() for p in task.policy.parameters()]
        return train_step(task, *rest)

    monkeypatch.setattr(loop, "_train_step", watched)
    with pytest.raises(NonFiniteError):
        run("dpo", poisoned, marked, tmp_path / "run", holdout=0, max_steps=None)
    for now, before in zip(kept["policy"].parameters(), kept["before"], strict=True):
        torch.testing.assert_close(now.detach(), before, rtol=0, atol=0, equal_nan=True)
        assert now.grad is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_running_out_of_memory_says_which_node_budget_would_fit(error, start, pairs_file, tmp_path, monkeypatch):
    def exhausted(*_):
        raise error

    monkeypatch.setattr(loop, "accumulate_gradient", exhausted)
    with pytest.raises(OutOfMemoryError, match=r"in a tree of (\d+) nodes; about (\d+) would fit: .*--node-budget \d+"):
        run("dpo", start, pairs_file, tmp_path / "run")


def test_other_errors_keep_their_traceback(start, pairs_file, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loop, "accumulate_gradient", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run("dpo", start, pairs_file, tmp_path / "run")


def test_the_automatic_node_budget_follows_the_memory_there_is(tiny_model, monkeypatch):
    policy = Scorer(tiny_model("llama"))
    monkeypatch.setattr(memory, "ENOUGH", 10**9)
    budgets = []
    for free in (2**28, 2**29, 2**30):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: free)
        budgets.append(fitting_node_budget(policy))
    first, second, third = budgets
    assert all(budget % 64 == 0 for budget in budgets)
    assert third - second == pytest.approx(2 * (second - first), rel=0.01)
    monkeypatch.setattr(memory, "free_memory", lambda _: 2**20)
    with pytest.raises(OutOfMemoryError, match=r"1\.0 MB of memory are free; .* or try --lora-rank"):
        fitting_node_budget(policy)


def test_an_automatic_node_budget_becomes_the_number_that_a_resumed_run_has(start, pairs_file, tmp_path):
    run("dpo", start, pairs_file, tmp_path / "run", node_budget="auto")
    assert re.search(r"^node_budget = \d+$", (tmp_path / "run" / "config.toml").read_text(), re.MULTILINE)
