"""A reference whose scores are kept: the same numbers as the model's own, each computed once."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from kilter.errors import ModelError
from kilter.model.fingerprint import model_fingerprint
from kilter.model.prepared import PreparedTree
from kilter.model.reference_scores import ReferenceScores
from kilter.model.row_functions import (
    ENTROPY,
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_COLLISION,
    LOG_PROB,
    REFERENCE_LOG_PROB,
)
from kilter.model.score_store import path_keys
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

# Two prompts, answers that begin alike, a turn that is not scored, and an answer that is the start of another.
ANSWERS = [
    TokenSequence(np.array([7, 8, 1, 2, 3], np.int32), 2),
    TokenSequence(np.array([7, 8, 1, 4], np.int32), 2),
    TokenSequence(np.array([5, 6, 9, 9, 2, 11], np.int32), 2, np.array([1, 0, 0, 1], np.float32)),
    TokenSequence(np.array([5, 6, 9], np.int32), 2),
]


def tree(answers=ANSWERS):
    return PreparedTree(TokenTree.build(answers))


@pytest.fixture
def model(tiny_model):
    return Scorer(tiny_model("llama"))


def kept(model, directory, hidden=False, **settings):
    return ReferenceScores(directory, model_fingerprint(model), lambda: model, hidden=hidden, **settings)


class Locked(Scorer):
    """Raises where the model is run."""

    def hidden(self, *_):
        raise AssertionError("the model was run")


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("hidden", [False, True])
def test_scores_are_the_models_own_when_computed_when_found_and_in_another_process_directory(hidden, model, tmp_path):
    whole = tree()
    with torch.no_grad():
        log_prob, entropy, collision = model(whole, [LOG_PROB, ENTROPY, LOG_COLLISION])
    scores = kept(model, tmp_path, hidden)
    for reference in (scores, scores, kept(model, tmp_path, hidden)):
        close(reference(whole)[0], log_prob)
        for ours, theirs in zip(reference(whole, [ENTROPY, LOG_PROB]), (entropy, log_prob), strict=True):
            close(ours, theirs)
    close(scores(whole, [LOG_COLLISION])[0], collision)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_token_is_computed_once_in_whatever_order_cut_or_company_it_comes(hidden, model, tmp_path):
    filled = kept(model, tmp_path, hidden)
    filled.fill(tree())
    again = kept(model, tmp_path, hidden)
    again.use(Locked(model.model))
    cut = ANSWERS[0]._replace(ids=ANSWERS[0].ids[:-1])
    alone = ANSWERS[2]._replace(ids=ANSWERS[2].ids[:3], weights=ANSWERS[2].weights[:1])
    for answers in (ANSWERS[::-1], ANSWERS[:1], [ANSWERS[3], ANSWERS[1]], [cut, alone], [*ANSWERS, ANSWERS[0]]):
        part = tree(answers)
        with torch.no_grad():
            (wanted,) = model(part)
        close(again(part)[0], wanted)
    assert again.counts.misses == again.counts.computed == 0
    assert again.counts.hits == 6 + 3 + 3 + 3 + 6


def test_of_a_batch_with_one_new_answer_that_answer_alone_is_computed(model, tmp_path):
    scores = kept(model, tmp_path)
    scores.fill(tree())
    before = scores.counts.computed
    new = TokenSequence(np.array([7, 8, 1, 2, 30, 31], np.int32), 2)
    (ours,) = scores(tree([*ANSWERS, new]))
    with torch.no_grad():
        (wanted,) = model(tree([*ANSWERS, new]))
    close(ours, wanted)
    assert scores.counts.computed - before == len(new.ids)
    assert scores.counts.misses == 6 + 2


KLS = [KL_POLICY_REFERENCE, KL_REFERENCE_POLICY, REFERENCE_LOG_PROB]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_with_hidden_states_exact_kl_needs_the_head_alone(autocast, tiny_model, tmp_path):
    policy = Scorer(tiny_model("llama", seed=1), autocast=autocast)
    model = Scorer(tiny_model("llama"), autocast=autocast)
    with torch.no_grad():
        wanted = policy(tree(), KLS, reference=model)
    fingerprint = model_fingerprint(model)
    filled = kept(model, tmp_path, hidden=True)
    with torch.no_grad():
        computed = policy(tree(), KLS, reference=filled)
    again = ReferenceScores(tmp_path, fingerprint, lambda: model, hidden=True)
    again.use(Locked(model.model, autocast=autocast))
    with torch.no_grad():
        found = policy(tree(), KLS, reference=again)
        part = policy(tree(ANSWERS[:2]), KLS, reference=again)
    for ours, theirs in zip(computed, wanted, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)  # hidden states are kept to the last bit that the head takes
    assert len(part[0]) < len(found[0])
    type_ = "float32" if autocast is None else "bfloat16"
    (place,) = (tmp_path / fingerprint).glob("hidden-*")
    assert place.name == f"hidden-{type_}-32"
    assert re.search(rf"5 hidden states of 32 x {type_}", again.describe(again.counts))


def test_a_model_loaded_for_its_head_is_let_go(model, tmp_path):
    kept(model, tmp_path, hidden=True).fill(tree())
    again = kept(model, tmp_path, hidden=True)
    again.beside(tree())
    assert not again.in_memory


def test_log_probs_there_without_hidden_states_are_computed_once_more_and_stay_the_same(model, tmp_path):
    (before,) = kept(model, tmp_path)(tree())
    scores = kept(model, tmp_path, hidden=True)
    (after,) = scores(tree(ANSWERS[:2]))
    assert scores.counts.computed > 0
    (whole,) = scores(tree())
    assert torch.equal(whole, before)
    assert torch.equal(after, kept(model, tmp_path)(tree(ANSWERS[:2]))[0])


def test_scores_of_another_model_are_neither_found_nor_taken(tiny_model, model, tmp_path):
    kept(model, tmp_path).fill(tree())
    other = Scorer(tiny_model("llama", seed=2))
    scores = kept(other, tmp_path)
    assert len(scores) == 0
    mixed_up = ReferenceScores(tmp_path, model_fingerprint(model), lambda: other)
    mixed_up(tree())  # found; the model is not asked
    with pytest.raises(ModelError, match=f"{model_fingerprint(model)}.*{model_fingerprint(other)}"):
        mixed_up(tree([TokenSequence(np.array([1, 2, 3], np.int32), 1)]))


def test_a_fingerprint_tells_weights_settings_types_and_adapters_and_not_where_a_model_lies(tiny_model, tmp_path):
    model = tiny_model("llama")
    first = model_fingerprint(Scorer(model))
    model.config._name_or_path, model.config.transformers_version = "elsewhere", "0"
    assert model_fingerprint(Scorer(model)) == first
    others = [
        Scorer(tiny_model("llama", seed=1)),
        Scorer(tiny_model("llama"), autocast=torch.bfloat16),
        Scorer(tiny_model("llama"), path="separate"),
        Scorer(tiny_model("llama").to(torch.bfloat16)),
        Scorer(tiny_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
        Scorer(tiny_model("llama", rms_norm_eps=1e-3)),
    ]
    assert len({first, *map(model_fingerprint, others)}) == len(others) + 1


def test_scores_that_are_no_number_are_not_kept(model, tmp_path):
    """Whoever looks for their cause, row by row, must find it again, and a later run must not inherit them."""
    with torch.no_grad():
        model.model.get_input_embeddings().weight[4] = torch.nan
    scores = kept(model, tmp_path, hidden=True)
    scores.fill(tree([ANSWERS[0]]))
    bad = tree([TokenSequence(np.array([7, 4, 1, 2], np.int32), 2)])
    for times in (1, 2):
        assert scores(bad)[0].isnan().all()
        assert scores.counts.computed == 5 + 4 * times
    assert len(scores) == 3
    assert scores._hidden.store.has(path_keys(tree([ANSWERS[0]]).tree)).sum() == 3
    assert not scores._hidden.store.has(path_keys(bad.tree)).any()


def test_a_flipped_byte_of_scores_or_hidden_states_is_told_and_computed_again(model, tmp_path):
    with torch.no_grad():
        (wanted,) = model(tree())
    for kind in ("log-probs", "hidden-float32-32"):
        kept(model, tmp_path / kind, hidden=True).fill(tree())
        (file,) = (tmp_path / kind).glob(f"*/{kind}/*.scores")
        damaged = bytearray(file.read_bytes())
        damaged[-5] ^= 4
        file.write_bytes(damaged)
        said = []
        scores = kept(model, tmp_path / kind, hidden=True, warn=said.append)
        assert torch.equal(scores.beside(tree()).hidden_ND, model.hidden(tree()).detach())
        close(scores(tree())[0], wanted)
        (text,) = said
        assert text.startswith(f"{file}, block 1: is not what was written")
        assert scores.counts.computed == len(tree())
        again = kept(model, tmp_path / kind, hidden=True, warn=said.append)
        again.use(Locked(model.model))
        close(again(tree())[0], wanted)


FILLING = """
import sys
import numpy as np, torch
from pathlib import Path
from kilter.model.loading import load_scorer
from kilter.model.fingerprint import model_fingerprint
from kilter.model.prepared import PreparedTree
from kilter.model.reference_scores import ReferenceScores
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
torch.set_num_threads(1)
_, model, directory, seed = sys.argv
model = load_scorer(model, prove=False)
scores = ReferenceScores(Path(directory), model_fingerprint(model), lambda: model, hidden=True, warn=sys.exit)
for answer in np.random.default_rng(int(seed)).permutation(60):
    ids = np.array([7, 8, answer % 6, answer // 6, 3, 1], np.int32)
    scores.fill(PreparedTree(TokenTree.build([TokenSequence(ids, 2)])))
print(scores.counts.misses, scores.counts.hits)
"""


def test_two_processes_that_fill_at_once_corrupt_nothing_and_use_what_the_other_did(model, tmp_path):
    model.model.save_pretrained(tmp_path / "model")
    fillers = [
        subprocess.Popen(
            [sys.executable, "-c", FILLING, str(tmp_path / "model"), str(tmp_path / "cache"), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    counts = [[int(count) for count in filler.communicate(timeout=300)[0].split()] for filler in fillers]
    assert [filler.returncode for filler in fillers] == [0, 0]
    assert [misses + hits for misses, hits in counts] == [240, 240]
    answers = [TokenSequence(np.array([7, 8, i % 6, i // 6, 3, 1], np.int32), 2) for i in range(60)]
    scores = kept(model, tmp_path / "cache", hidden=True, warn=pytest.fail)
    scores.use(Locked(model.model))
    with torch.no_grad():
        (wanted,) = model(tree(answers))
    close(scores(tree(answers))[0], wanted)
    torch.testing.assert_close(scores.beside(tree(answers)).hidden_ND, model.hidden(tree(answers)).detach())
