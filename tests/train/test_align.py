"""Whole runs on tiny models: from a file to a model that transformers loads."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, DataError, RunError
from kilter.measure.pairs import score_pairs
from kilter.model.head import SHAPE_MULTIPLE
from kilter.model.loading import load_scorer, load_tokenizer
from kilter.model.scorer import Scorer
from kilter.objectives import OBJECTIVES
from kilter.objectives.options import Positive
from kilter.tokens.encoding import Encoder
from kilter.train.config import SftConfig
from kilter.train.held_out import KEPT, compared_pairs
from kilter.train.sft import sft
from train.runs import SHAPE, run


@pytest.fixture
def console(tmp_path):
    with (tmp_path / "console.txt").open("w") as stream:
        yield Console(file=stream, width=200)


@pytest.mark.parametrize(
    "objective", ["dpo", "ipo", "ipo_mean", "hinge", "kto", "bco", "beta_dpo", "aot", "dpo + 0.1*kl"]
)
def test_every_objective_prefers_the_chosen_answers_after_a_few_steps(objective, start, pairs_file, tmp_path, console):
    aligned = run(objective, start, pairs_file, tmp_path / "run", console)
    assert aligned.before.correct_P.mean() == 0.5
    assert (aligned.before.gap_P == 0).all()
    assert aligned.after.correct_P.mean() == 1.0
    assert aligned.after.gap_P.mean() > 0


@pytest.mark.parametrize("objective", ["simpo", "orpo", "cpo", "slic + 0.1*sft"])
def test_objectives_without_a_reference_widen_the_gap_between_log_probs(
    objective, start, pairs_file, tmp_path, console
):
    aligned = run(objective, start, pairs_file, tmp_path / "run", console)
    before, after = (x.chosen.log_prob_A - x.rejected.log_prob_A for x in (aligned.before, aligned.after))
    assert (after > before).all()
    losses = [row["loss"] for row in RunDirectory(tmp_path / "run").read_metrics() if row.get("split") == "eval"]
    assert losses[-1] < losses[0]


def test_without_a_reference_nothing_is_called_a_log_ratio(start, pairs_file, tmp_path, console):
    aligned = run("simpo", start, pairs_file, tmp_path / "run", console)
    _, *rows = compared_pairs(aligned.before, aligned.after)
    assert [row[0] for row in rows] == [
        "chosen is the likelier answer",
        "log-prob of chosen, nats",
        "log-prob of rejected, nats",
    ]
    first = RunDirectory(tmp_path / "run").read_metrics()[1]
    assert first["gap"] == pytest.approx(first["chosen_log_prob"] - first["rejected_log_prob"], abs=1e-4)
    assert not {"margin", "chosen_log_ratio", "rejected_log_ratio"} & first.keys()


@pytest.mark.parametrize("direction", ["kl_policy_reference", "kl_reference_policy"])
def test_the_held_out_loss_has_the_kl_along_all_answers(direction, start, pairs_file, tmp_path, console):
    term = {"kl_policy_reference": "kl", "kl_reference_policy": "kl_reference"}[direction]
    aligned = run(f"hinge(beta=0.5) + 0.25*{term}", start, pairs_file, tmp_path / "run", console)
    losses = [row["loss"] for row in RunDirectory(tmp_path / "run").read_metrics() if row.get("split") == "eval"]
    sides = [side.kl_sums[direction] for side in (aligned.after.chosen, aligned.after.rejected)]
    hinge = np.maximum(0, 1 - 0.5 * aligned.after.gap_P).mean()
    assert losses[0] == pytest.approx(1, abs=1e-6)
    assert losses[-1] == pytest.approx(hinge + 0.25 * np.concatenate(sides).mean(), rel=1e-6)


def test_the_result_loads_with_transformers_alone_and_scores_as_reported(start, pairs_file, tmp_path, console):
    aligned = run("dpo", start, pairs_file, tmp_path / "run", console)
    model = AutoModelForCausalLM.from_pretrained(aligned.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(aligned.model)
    pair = read_pairs(pairs_file).rows[-16]
    prompt = tokenizer(pair.prompt).input_ids
    answer = [*tokenizer(pair.chosen, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        log_p = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    expected = sum(float(log_p[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
    assert aligned.after.chosen.log_prob_A[0] == pytest.approx(expected, rel=1e-5)


def test_metrics_have_a_row_a_step_and_evaluations_at_both_ends(start, pairs_file, tmp_path, console):
    run("dpo", start, pairs_file, tmp_path / "run", console, eval_every=2)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    steps = [row for row in rows if "split" not in row]
    evals = [row for row in rows if row.get("split") == "eval"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in evals] == [0, 2, 4, 6]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert evals[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert evals[0]["kl_policy_reference_along_chosen"] == pytest.approx(0.0, abs=1e-6)
    assert evals[-1]["kl_policy_reference_along_chosen"] > 0
    assert evals[-1]["accuracy_low"] < evals[-1]["accuracy"] <= evals[-1]["accuracy_high"]
    assert steps[0]["margin"] == 0.0


def test_the_same_seed_gives_the_same_model_and_another_seed_another(start, pairs_file, tmp_path, console):
    def weights(name, seed):
        aligned = run("dpo", start, pairs_file, tmp_path / name, console, seed=seed)
        return torch.cat([p.flatten() for p in AutoModelForCausalLM.from_pretrained(aligned.model).parameters()])

    first, again, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_node_budget_changes_memory_but_not_the_result(start, pairs_file, tmp_path, console):
    whole = run("dpo", start, pairs_file, tmp_path / "a", console)
    cut = run("dpo", start, pairs_file, tmp_path / "b", console, node_budget=64)
    np.testing.assert_allclose(cut.after.gap_P, whole.after.gap_P, rtol=1e-3)


def test_another_reference_is_what_the_run_is_measured_against(start, pairs_file, tmp_path, console):
    moved = run("dpo", start, pairs_file, tmp_path / "a", console)
    aligned = run("dpo", start, pairs_file, tmp_path / "b", console, reference=str(moved.model), max_steps=1)
    np.testing.assert_allclose(aligned.before.gap_P, -moved.after.gap_P, rtol=1e-3)


def test_bfloat16_starts_at_log_2_and_learns_the_same(start, pairs_file, tmp_path, console):
    aligned = run("dpo", start, pairs_file, tmp_path / "run", console, precision="bfloat16")
    assert aligned.after.correct_P.mean() == 1.0
    first = RunDirectory(tmp_path / "run").read_metrics()[1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    saved = AutoModelForCausalLM.from_pretrained(aligned.model, dtype="auto")
    assert saved.dtype == torch.float32


def test_under_bfloat16_every_tree_of_a_run_has_a_size_that_kernels_are_compiled_for(
    start, pairs_file, tmp_path, console, monkeypatch
):
    sizes, hidden = [], Scorer.hidden

    def counted(self, tree, *given):
        if self.autocast is not None:  # the proof's own texts are scored in float32
            sizes.append(len(tree))
        return hidden(self, tree, *given)

    monkeypatch.setattr(Scorer, "hidden", counted)
    for objective in ("dpo", "kto"):
        run(objective, start, pairs_file, tmp_path / objective, console, precision="bfloat16", max_steps=2)
    assert sizes
    assert [size for size in sizes if size % SHAPE_MULTIPLE] == []


def test_the_manifest_has_the_fingerprints_of_all_files(start, pairs_file, tmp_path, console):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(pairs_file.read_text().splitlines(keepends=True)[:5]))
    run("dpo", start, pairs_file, tmp_path / "run", console, eval_data=held_out, holdout=0, max_steps=1)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["data"][0]["sha256"] == hashlib.sha256(pairs_file.read_bytes()).hexdigest()
    assert manifest["eval_data"][0]["sha256"] == hashlib.sha256(held_out.read_bytes()).hexdigest()


def test_demonstrations_are_learnt_and_their_held_out_cross_entropy_falls(start, pairs_file, tmp_path, console):
    before = RunDirectory(start.parent).read_metrics()
    assert before[0]["loss"] == pytest.approx(math.log(300), rel=0.1)
    assert before[-1]["loss"] < 0.85 * before[0]["loss"]
    sft(SftConfig(data=pairs_file, out=tmp_path / "run", model=str(start), holdout=8, learning_rate=1e-3), console)
    evals = [row for row in RunDirectory(tmp_path / "run").read_metrics() if row.get("split") == "eval"]
    assert evals[-1]["loss"] < evals[0]["loss"]


def test_a_fresh_tokenizer_renders_conversations_and_begins_with_one_bos(start):
    tokenizer = load_tokenizer(str(start))
    ids = tokenizer("Dish").input_ids
    assert ids[0] == tokenizer.bos_token_id
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "\n\nHuman: Hi\n\nAssistant:"


def test_an_occupied_directory_is_refused_and_left_as_it_was(start, pairs_file, tmp_path, console):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="--out"):
        run("dpo", start, pairs_file, tmp_path / "run", console, overwrite=True)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"objective": "ipo", "label_smoothing": 0.1}, ConfigError, "does not use label_smoothing"),
        ({"objective": "sft"}, ConfigError, "kilter sft"),
        ({"objective": "kl"}, ConfigError, r"only holds the policy to its reference; .* such as dpo \+ 0\.1\*kl"),
        ({"objective": "dop"}, ConfigError, "choose one of: dpo"),
        ({"objective": "kto", "batch_size": 1}, ConfigError, "batch-size"),
        ({"objective": "dpo", "holdout": 64}, ConfigError, "hold out fewer"),
        ({"objective": "dpo", "max_length": 4}, DataError, "4"),
        ({"objective": "dpo + 0.1*kto", "batch_size": 1}, ConfigError, "batch-size"),
        ({"objective": "sft + 0.1*dpo(beta=0)"}, ConfigError, "beta of dpo is 0; expected a number above 0"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    settings, error, message, start, pairs_file, tmp_path, console
):
    with pytest.raises(error, match=message):
        run(settings.pop("objective"), start, pairs_file, tmp_path / "run", console, **settings)
    assert not (tmp_path / "run").exists()


def with_margin(pairs, *, beta: Positive = 0.1):
    """dpo on a gap that is to exceed the margin of its pair."""
    return -torch.nn.functional.logsigmoid(beta * (pairs.gap_P - pairs.margin_P))


@pytest.mark.parametrize("where", ["trained on", "held out", "nowhere"])
def test_an_objective_that_needs_margins_names_the_first_row_without_before_anything_is_written(
    where, start, pairs_file, tmp_path, console, monkeypatch
):
    needs = OBJECTIVES["dpo"].needs | {"margin"}
    row = dataclasses.replace(OBJECTIVES["dpo"], loss=with_margin, needs=needs, at_zero=None)
    monkeypatch.setitem(OBJECTIVES, "with_margin", row)
    rated = [{**json.loads(line), "margin": 2.0} for line in pairs_file.read_text().splitlines()]
    place = {"trained on": 7, "held out": 59, "nowhere": None}[where]
    if place is not None:
        del rated[place]["margin"]
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated))
    given = ("with_margin", start, tmp_path / "rated.jsonl", tmp_path / "run", console)
    if place is None:
        run(*given)
        # At the start gaps are 0: the loss is -log sigmoid(-0.1 * 2).
        assert RunDirectory(tmp_path / "run").read_metrics()[1]["loss"] == pytest.approx(math.log1p(math.exp(0.2)))
        return
    wanted = rf"'with_margin' needs to know by how much .*rated.jsonl:{place + 1} does not say; give every row a margin"
    with pytest.raises(ConfigError, match=wanted):
        run(*given)
    assert not (tmp_path / "run").exists()


def rated(pairs_file, tmp_path):
    """The same pairs with margins and scores."""
    rows = [
        json.loads(line) | {"margin": 0.1 * (place % 5), "chosen_score": 1.0, "rejected_score": 1 - place % 3}
        for place, line in enumerate(pairs_file.read_text().splitlines())
    ]
    (tmp_path / "rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "rated.jsonl"


ON_PAIRS = [name for name, row in OBJECTIVES.items() if row.takes != "rankings"]


def test_all_objectives_together_are_trained_and_begin_where_each_declares(start, pairs_file, tmp_path, console):
    """The run itself compares the first loss of each with what is declared."""
    mixture = " + ".join(f"0.01*{name}" for name in ON_PAIRS)
    aligned = run(mixture, start, rated(pairs_file, tmp_path), tmp_path / "run", console, node_budget=64)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    for row in rows:
        assert row["loss"] == pytest.approx(sum(0.01 * row[f"loss_{name}"] for name in ON_PAIRS))
    assert rows[0]["loss_dpo"] == rows[1]["loss_dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert all(math.isfinite(row[f"loss_{name}"]) for row in rows for name in ON_PAIRS)
    assert aligned.after.gap_P.mean() > 0


def test_each_held_out_loss_is_the_same_from_the_scores_as_from_batches(
    start, pairs_file, tmp_path, console, monkeypatch
):
    """Of those that can be had from scores."""
    mixture = " + ".join(
        f"0.01*{name}" for name in ON_PAIRS if OBJECTIVES[name].unit != "batch" and OBJECTIVES[name].needs <= KEPT
    )
    assert mixture.count("+") > 15
    file = rated(pairs_file, tmp_path)
    run(mixture, start, file, tmp_path / "scores", console, max_steps=2)
    monkeypatch.setattr("kilter.train.held_out.KEPT", frozenset())
    run(mixture, start, file, tmp_path / "batches", console, max_steps=2, node_budget=64)
    ours, theirs = (RunDirectory(tmp_path / name).read_metrics()[-1] for name in ("scores", "batches"))
    for name in (name for name in theirs if name.startswith("loss")):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_beta_may_be_nought_where_the_objective_says_so(start, pairs_file, tmp_path, console):
    """bt_kl is then the plain likelihood of Bradley and Terry."""
    run("bt_kl", start, pairs_file, tmp_path / "run", console, beta=0, max_steps=1)
    before = RunDirectory(tmp_path / "run").read_metrics()[0]
    assert RunDirectory(tmp_path / "run").read_manifest()["objective"] == "bt_kl(beta=0)"
    policy = load_scorer(str(start))
    pairs = Encoder(load_tokenizer(str(start)), "auto").encode_pairs(read_pairs(pairs_file).rows[-16:]).rows
    scored = score_pairs(policy, pairs)
    wanted = np.logaddexp(0, scored.rejected.log_prob_A - scored.chosen.log_prob_A).mean()
    assert before["loss"] == pytest.approx(wanted, rel=1e-5)


def test_options_are_set_within_the_objective_or_beside_it(start, pairs_file, tmp_path, console):
    """The same run three ways; and the manifest and the card say all options, those that were not given too."""
    ways = {
        "inside": {"objective": "dpo(beta=0.3, label_smoothing=0.2) + 0.5*sft"},
        "beside": {"objective": "dpo + 0.5*sft", "beta": 0.3, "label_smoothing": 0.2},
        "both": {"objective": "dpo(beta=0.3)+.5*sft", "label_smoothing": 0.2, "beta": 0.3},
    }
    losses = []
    for name, given in ways.items():
        out = tmp_path / name
        run(given.pop("objective"), start, pairs_file, out, console, max_steps=2, **given)
        losses.append([row["loss"] for row in RunDirectory(out).read_metrics()])
        written = "dpo(beta=0.3, label_smoothing=0.2) + 0.5*sft"
        assert RunDirectory(out).read_manifest()["objective"] == written
        assert "dpo(beta=0.3, label_smoothing=0.2): logistic loss" in (out / "model" / "README.md").read_text()
    assert losses[0] == losses[1] == losses[2]


def test_a_reference_that_scores_otherwise_stops_the_run_at_its_first_step(
    start, pairs_file, tmp_path, console, monkeypatch
):
    def drifted(scorer):
        other = load_scorer(str(start))
        with torch.no_grad():
            next(other.parameters()).mul_(1.5)
        return other

    monkeypatch.setattr("kilter.train.reference.copy_of", drifted)
    with pytest.raises(Exception, match="before the first update"):
        run("dpo", start, pairs_file, tmp_path / "run", console, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "run" / "model").exists()


def test_answers_are_sampled_at_evaluations_and_their_kl_is_nil_at_the_start(start, pairs_file, tmp_path, console):
    run("dpo", start, pairs_file, tmp_path / "run", console, sample_eval=6, sample_tokens=8, eval_every=3)
    rows = [row for row in RunDirectory(tmp_path / "run").read_metrics() if row.get("split") == "eval"]
    assert [row["step"] for row in rows] == [0, 3, 6]
    assert abs(rows[0]["answer_kl_policy_reference"]) < 1e-5
    assert rows[2]["answer_kl_policy_reference"] > 3 * rows[2]["answer_kl_policy_reference_se"] > 0
    assert rows[0]["sampler_disagreement"] < 1e-4
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 6 + [3] * 6 + [6] * 6
    assert all(sample["tokens"] <= 8 for sample in samples)
    kl = sum(s["kl_policy_reference"] for s in samples[12:]) / 6
    assert kl == pytest.approx(rows[2]["answer_kl_policy_reference"])
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "KL(policy, reference) of answers" in card


def test_a_model_from_scratch_keeps_fewer_activations_when_asked_to(pairs_file, tmp_path, console, monkeypatch):
    asked = []

    def noted(scorer):
        asked.append(scorer)

    monkeypatch.setattr(Scorer, "recompute_activations", noted)
    given = {"data": pairs_file, "from_scratch": SHAPE, "max_steps": 1}
    sft(SftConfig(out=tmp_path / "plain", **given), console)
    assert not asked
    sft(SftConfig(out=tmp_path / "again", activation_checkpointing=True, **given), console)
    assert len(asked) == 1


def test_the_model_card_says_what_was_trained_on_what_and_what_came_of_it(start, pairs_file, tmp_path, console):
    aligned = run("ipo", start, pairs_file, tmp_path / "run", console, beta=0.2)
    card = (aligned.model / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    for said in ("48 examples; 16 held out", "arXiv 2310.12036", "| beta | `0.2` |", "| learning_rate | `0.001` |"):
        assert said in card
    assert hashlib.sha256(pairs_file.read_bytes()).hexdigest()[:16] in card
    accuracy = next(line for line in card.splitlines() if line.startswith("| accuracy"))
    assert f"| {aligned.after.correct_P.mean():.3f} |" in accuracy
