"""From records of every kind to a trained model; reading is left out, so that no format is needed."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from kilter.data.reading import Dataset, FileAccount
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Ranking, Steps
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.objectives import parse
from kilter.train import align as align_module
from kilter.train import held_out as held_out_module
from kilter.train import sft as sft_module
from kilter.train.config import SftConfig
from kilter.train.sft import sft
from kilter.train.shared import Shared
from train.runs import ADJECTIVES, assert_same_run, quiet, run
from train.test_resume import resume, stop_after

PROMPTS = [f"Dish {i} is {adjective}." for i in range(8) for adjective in ADJECTIVES]
LOVE, HATE = " I love it.", " I hate it."


def rows_of(kind):
    """Sixty-four rows of a file, in which the happy answer is the better one."""
    for line, prompt in enumerate(PROMPTS, 1):
        origin = Origin("made", line)
        match kind:
            case "pairs":
                yield Pair(prompt, LOVE, HATE, origin)
            case "graded pairs":
                yield Pair(prompt, LOVE, HATE, origin, preference=0.8 if line % 4 else 1.0)
            case "rankings":
                yield Ranking(prompt, (" I eat it.", HATE, LOVE), (2, 3, 1), origin)
            case "labelled":
                yield Labelled(prompt, LOVE if line % 3 else HATE, line % 3 > 0, origin)
            case "steps":
                yield Steps(prompt, ("I love it.", "I hate it."), (True, False), origin, separator=" ")
            case "demonstrations":
                yield Demonstration(prompt, LOVE, origin)


@pytest.fixture
def reads(monkeypatch):
    """Has the next commands find such rows, or these, in the file "made", and in any other those of its name."""

    def put(*kinds, these=()):
        def read_rows(sources, *wanted, **_):
            (source,) = sources
            named = kinds if "made" in source else [Path(source).name]
            records = [*these, *(row for kind in named for row in rows_of(kind))]
            given = {type(row) for row in records}
            kind = next(kind for kind in wanted if given <= VIEWS[kind].keys())
            rows = tuple(view for row in records for view in VIEWS[kind][type(row)](row))
            return Dataset(rows, (FileAccount("made", "0" * 64, "pair-text", len(records)),))

        monkeypatch.setattr(align_module, "Shared", lambda: Shared(read=read_rows))
        monkeypatch.setattr(sft_module, "read_demonstrations", lambda sources, **_: read_rows(sources, Demonstration))

    return put


def console():
    return Console(file=io.StringIO(), width=200)


def said(out):
    return out.file.getvalue()


ALIGNED = [
    ("dpo", "pairs", ScoredPairs, 64, 16),
    ("dpo", "rankings", ScoredPairs, 3 * 64, 18),
    ("kto", "pairs", ScoredPairs, 64, 16),
    ("kto", "rankings", ScoredPairs, 3 * 64, 18),
    ("plackett_luce", "rankings", ScoredRankings, 64, 16),
    ("plackett_luce", "pairs", ScoredRankings, 64, 16),
    ("kto", "labelled", ScoredLabelled, 64, 16),
    ("kto", "steps", ScoredLabelled, 2 * 64, 16),
]


@pytest.mark.parametrize(("objective", "kind", "scored", "rows", "held_out"), ALIGNED)
def test_every_kind_of_preference_is_learnt_and_accounted_for(
    objective, kind, scored, rows, held_out, reads, start, tmp_path
):
    reads(kind)
    out = console()
    steps = {"max_steps": 20} if objective != "dpo" else {}
    aligned = run(objective, start, tmp_path / "made", tmp_path / "run", out, **steps)
    manifest = RunDirectory(tmp_path / "run").read_manifest()
    assert (manifest["examples"], manifest["held_out"]) == (rows - held_out, held_out)
    assert type(aligned.before) is type(aligned.after) is scored
    assert len(aligned.after) == held_out
    if scored is ScoredRankings:
        per_ranking = 3 if kind == "rankings" else 2
        assert aligned.before.first_R.mean() == pytest.approx(1 / per_ranking)
        assert aligned.after.first_R.mean() > 0.9
        assert aligned.after.pairs.gap_P.mean() > 0 == aligned.before.pairs.gap_P.mean()
        assert f"{held_out} held-out rankings" in said(out)
        assert "a best answer has the highest log-ratio" in said(out)
        row = RunDirectory(tmp_path / "run").read_metrics()[1]
        # All orders of the answers are as likely at the start.
        assert row["loss"] == pytest.approx(math.log(math.factorial(per_ranking)), abs=1e-6)
        assert (row["accuracy"], row["margin"]) == (0.5, pytest.approx(0, abs=1e-6))
    elif scored is ScoredPairs:
        assert aligned.after.gap_P.mean() > 0 == aligned.before.gap_P.mean()
        assert f"{held_out} held-out pairs" in said(out)
    else:
        assert (aligned.before.answers.log_ratio_A == 0).all()
        assert aligned.before.auc.value == 0.5
        assert aligned.after.auc.value > 0.9
        assert f"{held_out} held-out labelled answers" in said(out)
        assert aligned.after.good.log_ratio_A.mean() > 0 > aligned.after.bad.log_ratio_A.mean()


@pytest.mark.parametrize(
    ("objective", "kind"),
    [("dpo + 0.5*sft", "pairs"), ("kto + 0.5*sft", "labelled"), ("plackett_luce + 0.5*sft", "rankings")],
)
def test_mixtures_are_learnt_and_told_term_by_term(objective, kind, reads, start, tmp_path):
    reads(kind)
    run(objective, start, tmp_path / "made", tmp_path / "run", eval_every=3)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    name = objective.split(" ")[0]
    for row in rows:
        assert row["loss"] == pytest.approx(row[f"loss_{name}"] + 0.5 * row["loss_sft"])
    evals = [row for row in rows if row.get("split") == "eval"]
    assert evals[-1]["loss_sft"] < evals[0]["loss_sft"]
    assert evals[-1][f"loss_{name}"] < evals[0][f"loss_{name}"]
    terms = [parse(objective).terms[0], "0.5*sft"]
    assert RunDirectory(tmp_path / "run").read_manifest()["objective"] == " + ".join(map(str, terms))


@pytest.mark.parametrize(("objective", "kind"), [("ipo", "pairs"), ("plackett_luce", "rankings")])
def test_the_held_out_loss_is_the_same_from_the_scores_as_from_batches(
    objective, kind, reads, start, tmp_path, monkeypatch
):
    reads(kind)
    mixture = f"{objective} + 0.5*sft"
    run(mixture, start, tmp_path / "made", tmp_path / "scores")
    monkeypatch.setattr(held_out_module, "KEPT", frozenset())
    run(mixture, start, tmp_path / "made", tmp_path / "batches", node_budget=64)
    ours, theirs = (RunDirectory(tmp_path / name).read_metrics() for name in ("scores", "batches"))
    for row, wanted in zip(ours, theirs, strict=True):
        for name in ("loss", f"loss_{objective}", "loss_sft"):
            assert row[name] == pytest.approx(wanted[name], rel=1e-4)


@pytest.mark.parametrize("kind", ["pairs", "rankings", "labelled", "demonstrations"])
def test_every_kind_of_answer_is_imitated(kind, reads, start, tmp_path):
    reads(kind)
    out = console()
    given = {"model": str(start), "holdout": 8, "learning_rate": 1e-3, "max_steps": 4, "data": tmp_path / "made"}
    sft(SftConfig(out=tmp_path / "run", **given), out)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    evals = [row["loss"] for row in rows if row.get("split") == "eval"]
    assert evals[-1] < evals[0]
    good = sum(row.good for row in rows_of("labelled"))
    examples = good if kind == "labelled" else 64
    assert RunDirectory(tmp_path / "run").read_manifest()["examples"] == examples - 8


def test_metrics_of_labelled_answers_tell_good_from_bad(reads, start, tmp_path):
    reads("labelled")
    out = console()
    run("kto", start, tmp_path / "made", tmp_path / "run", out, eval_every=3, desirable_weight=2.0)
    rows = RunDirectory(tmp_path / "run").read_metrics()
    evals = [row for row in rows if row.get("split") == "eval"]
    steps = [row for row in rows if "split" not in row]
    assert [row["step"] for row in evals] == [0, 3, 6]
    assert (evals[0]["answers"], evals[0]["good"]) == (16, 11)
    assert evals[0]["loss"] == pytest.approx((11 * 2 + 5) / 16 / 2, abs=1e-6)
    assert evals[0]["auc"] == 0.5
    assert evals[0]["auc_low"] < 0.5 < evals[0]["auc_high"]
    assert evals[-1]["loss"] < evals[0]["loss"]
    for name in ("kl_policy_reference", "kl_reference_policy"):
        for side in ("good", "bad"):
            assert evals[0][f"{name}_along_{side}"] == pytest.approx(0, abs=1e-6) != evals[-1][f"{name}_along_{side}"]
    assert steps[0]["good_log_ratio"] == 0
    assert "accuracy" not in steps[0]
    table = said(out)
    assert "good +0.000  bad +0.000" in table
    for words in ("AUC: a good answer has the higher log-ratio", "log-ratio of bad", "along good, nats/token"):
        assert words in table
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| AUC: a good answer has the higher log-ratio | 0.500 |" in card
    assert "48 examples; 16 held out" in card
    assert "to train on: 32 good and 16 bad answers" in table


def test_a_run_on_labelled_answers_that_was_stopped_goes_on_with_the_same_bits(reads, start, tmp_path, monkeypatch):
    reads("labelled")
    given = {"sample_eval": 2, "sample_tokens": 4, "node_budget": 64, "pairs": tmp_path / "made"}
    whole = run("kto", start, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("kto", start, out=tmp_path / "cut", **given)
    resumed = resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert resumed.before.good_A.tolist() == whole.before.good_A.tolist()
    assert resumed.after.auc == whole.after.auc
    samples = [json.loads(line) for line in (tmp_path / "cut" / "samples.jsonl").read_text().splitlines()]
    assert [sample["prompt"].endswith(prompt) for sample, prompt in zip(samples, PROMPTS[48:50] * 2, strict=True)]


def test_a_run_on_rankings_that_was_stopped_goes_on_with_the_same_bits(reads, start, tmp_path, monkeypatch):
    reads("rankings")
    given = {"sample_eval": 2, "sample_tokens": 4, "node_budget": 64, "pairs": tmp_path / "made"}
    whole = run("plackett_luce", start, out=tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("plackett_luce", start, out=tmp_path / "cut", **given)
    resumed = resume(tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert (resumed.before.rank_A == whole.before.rank_A).all()
    assert (resumed.after.pairs.gap_P == whole.after.pairs.gap_P).all()


def test_an_objective_on_rankings_refuses_labelled_answers(reads, start, tmp_path):
    reads("labelled")
    wanted = r"'plackett_luce' learns from rankings, and answers labelled one by one were found: made .*; use .* kto"
    with pytest.raises(ConfigError, match=wanted):
        run("plackett_luce", start, tmp_path / "made", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rankings_with_answers_of_equal_rank_are_counted(reads, start, tmp_path):
    tied = Ranking("Dish 9 is warm.", (LOVE, HATE, " I eat it."), (1, 2, 2), Origin("made", 65))
    reads("rankings", these=[tied])
    out = console()
    run("plackett_luce", start, tmp_path / "made", tmp_path / "run", out, max_steps=1)
    assert "1 of 65 rankings have answers of equal rank" in said(out)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ({"ranks": [1, 2, 2]}, "ranked.jsonl: 9 rankings, format ranked"),
        ({"ranks": [1, 1, 1]}, "8 rankings in all, 1 tie left out"),
    ],
)
def test_a_file_of_rankings_goes_from_the_command_to_a_model(first, told, start, tmp_path):
    def row(place, ranks):
        answers = [
            {"answer": answer, "rank": rank} for answer, rank in zip((LOVE, HATE, " I eat."), ranks, strict=True)
        ]
        return {"prompt": f"Dish {place} is warm.", "answers": answers}

    rows = [row(0, **first), *(row(place, [1, 3, 2]) for place in range(1, 9))]
    (tmp_path / "ranked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = console()
    given = {"holdout": 2, "batch_size": 4, "max_steps": 20}
    aligned = run("plackett_luce", start, tmp_path / "ranked.jsonl", tmp_path / "run", out, **given)
    assert told in said(out)
    assert aligned.after.first_R.mean() == 1


def test_a_file_of_pairs_is_one_of_rankings_of_two(start, pairs_file, tmp_path):
    """Whose loss is that of dpo: the same run."""
    out = console()
    run("plackett_luce", start, pairs_file, tmp_path / "rankings", out)
    assert "pairs.jsonl: 64 pairs, format pair-text (prompt and answers as text), as rankings of two" in said(out)
    run("dpo", start, pairs_file, tmp_path / "pairs")
    ours, theirs = (RunDirectory(tmp_path / name).read_metrics() for name in ("rankings", "pairs"))
    for row, wanted in zip(ours, theirs, strict=True):
        for name in wanted.keys() - {"split", "seconds", "displacement"}:  # the last is words
            assert row[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("kind", ["labelled", "steps"])
def test_an_objective_on_pairs_says_which_one_takes_labelled_answers(kind, reads, start, tmp_path):
    reads(kind)
    wanted = r"'dpo' learns from pairs, and answers labelled one by one were found: made .*; use --objective kto or bco"
    with pytest.raises(ConfigError, match=wanted):
        run("dpo", start, tmp_path / "made", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pairs_and_labelled_answers_together_are_all_labelled(reads, start, tmp_path):
    reads("pairs", "labelled")
    aligned = run("kto", start, tmp_path / "made", tmp_path / "run", max_steps=1)
    assert isinstance(aligned.after, ScoredLabelled)
    assert RunDirectory(tmp_path / "run").read_manifest()["examples"] == 3 * 64 - 16
    with pytest.raises(ConfigError, match="use --objective kto"):
        run("ipo", start, tmp_path / "made", tmp_path / "other")


def test_what_is_trained_on_pairs_may_be_evaluated_on_labelled_answers(reads, start, tmp_path):
    reads("pairs")
    held_out = {"holdout": 0, "eval_data": Path("labelled")}
    aligned = run("kto", start, tmp_path / "made", tmp_path / "run", max_steps=20, **held_out)
    assert len(aligned.after) == 64
    assert aligned.after.auc.value > 0.9
    with pytest.raises(ConfigError, match="use --objective kto"):
        run("dpo", start, tmp_path / "made", tmp_path / "other", **held_out)


@pytest.mark.parametrize(
    ("kind", "asked", "held_out"),
    [("pairs", 5, 5), ("rankings", 1, 3), ("rankings", 6, 6), ("rankings", 7, 9), ("steps", 5, 6)],
)
def test_what_one_row_was_made_into_is_never_on_both_sides(kind, asked, held_out, reads, start, tmp_path, monkeypatch):
    reads(kind)
    encoded = []
    make = align_module.encode
    monkeypatch.setattr(align_module, "encode", lambda *given: encoded.append(make(*given)) or encoded[-1])
    out = console()
    run("kto", start, tmp_path / "made", tmp_path / "run", out, holdout=asked, max_steps=1)
    sides = [{row.origin.line for row in side.rows} for side in (encoded[0].train, encoded[0].held_out)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(range(1, 65))
    assert len(encoded[0].held_out) == held_out
    assert f"held out: the last {held_out} rows" in said(out)
    assert (f"({asked} and those made of the same row of the file)" in said(out)) == (held_out != asked)


def test_holding_out_the_rows_of_the_only_origin_is_refused(reads, start, tmp_path):
    reads(these=list(rows_of("steps"))[:1])
    with pytest.raises(ConfigError, match="there are 2 rows, of which those made of one row of the file stay together"):
        run("kto", start, tmp_path / "made", tmp_path / "run", holdout=1)


def test_graded_preferences_that_are_taken_as_certain_are_counted(reads, start, tmp_path):
    for kind, count in (("graded pairs", 48), ("pairs", 0)):
        reads(kind)
        out = console()
        run("dpo", start, tmp_path / "made", tmp_path / f"run{count}", out, max_steps=1)
        assert ("graded preferences" in said(out)) == (count > 0)
        assert (f"{count} graded preferences (below 1) are taken as certain" in said(out)) == (count > 0)


@pytest.mark.parametrize("label", [True, False])
def test_answers_of_one_label_alone_are_trained_on_and_evaluated(label, reads, start, tmp_path):
    reads(these=[Labelled(prompt, LOVE, label, Origin("made", i)) for i, prompt in enumerate(PROMPTS)])
    aligned = run("kto", start, tmp_path / "made", tmp_path / "run", desirable_weight=1.5)
    assert math.isnan(aligned.after.auc.value)
    assert (aligned.after.answers.log_ratio_A.mean() > 0) == label
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"log-ratio of {'good' if label else 'bad'}, nats" in card
    assert "AUC" not in card


def test_a_file_of_labelled_answers_goes_from_the_command_to_a_model(start, tmp_path):
    rows = [{"prompt": row.prompt, "completion": row.completion, "label": row.good} for row in rows_of("labelled")]
    (tmp_path / "kto.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    aligned = run("kto", start, tmp_path / "kto.jsonl", tmp_path / "run", quiet(), max_steps=20)
    assert aligned.after.auc.value > 0.9
    with pytest.raises(ConfigError, match="use --objective kto"):
        run("dpo", start, tmp_path / "kto.jsonl", tmp_path / "other")
