"""Claims about the architectures on the allow-list: a tree gives the scores and gradients of the model by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from conftest import TINY, VOCABULARY
from kilter.errors import ModelError
from kilter.model import blocks
from kilter.model.architectures import ARCHITECTURES, exact_up_to
from kilter.model.prepared import PreparedTree
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from model.plain import (
    completion_scores,
    flat_gradient,
    in_float64,
    in_plain_float64,
    relative_difference,
)

MakeModel = Callable[..., PreTrainedModel]
SHAPES, SEPARATE = (
    [shape for shape, (kind, _) in TINY.items() if ARCHITECTURES[kind].path == path] for path in ("tree", "separate")
)


def sequences() -> list[TokenSequence]:
    """Answers that branch at once and midway, one that is the beginning of another, one with weights, a second root,
    and an answer with nothing before it."""
    draw = np.random.default_rng(0)
    prompt, other_prompt, start, end, tail, other = (
        draw.integers(1, VOCABULARY, size).tolist() for size in (7, 4, 3, 4, 5, 6)
    )
    paths = [
        (prompt + start + end, 7, None),
        (prompt + start + tail, 7, None),
        (prompt + start, 7, None),
        (prompt + other, 7, [1, 0, 0.5, 2, 0, 1]),
        (other_prompt + start + end, 4, None),
        (start + tail, 0, None),
    ]
    return [
        TokenSequence(np.array(ids, np.int32), first, None if weights is None else np.array(weights, np.float32))
        for ids, first, weights in paths
    ]


SEQUENCES = sequences()
SLOPE = torch.tensor([1.0, -0.7, 0.4, -1.3, 0.8, 0.3], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _merged_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a tree would be one masked square; cut it into segments whose softmaxes are merged."""
    monkeypatch.setattr(blocks, "CALL_COST", 0)


def tree(node_multiple: int = 1) -> PreparedTree:
    return PreparedTree(TokenTree.build(SEQUENCES).padded(node_multiple))


def scores(scorer: Scorer, tree: PreparedTree, embeddings_TD: Tensor | None = None) -> Tensor:
    (log_prob,) = scorer(tree, embeddings_TD=embeddings_TD)
    return tree.sum_edges(log_prob)


def test_every_row_of_the_allow_list_is_tested_here() -> None:
    assert {kind for kind, _ in TINY.values()} == set(ARCHITECTURES)
    assert {TINY[shape][0] for shape in SHAPES} == {kind for kind, row in ARCHITECTURES.items() if row.path == "tree"}


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_and_windows_matter_to_these_models(shape: str, tiny_model: MakeModel) -> None:
    """Otherwise the tests below would pass with wrong positions or visibility."""
    model = tiny_model(shape)
    ids = torch.from_numpy(SEQUENCES[0].ids.astype("int64"))[None]
    swapped = ids.clone()
    swapped[0, -3:-1] = ids[0, [-2, -3]]
    with torch.no_grad():
        last, after_swap = (model(input_ids=x, use_cache=False).logits[0, -1].log_softmax(-1) for x in (ids, swapped))
    assert (last - after_swap).abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_and_gradients_equal_those_of_plain_float64_on_separate_sequences(
    shape: str, tiny_model: MakeModel
) -> None:
    model = tiny_model(shape)
    plain, fast = in_plain_float64(copy.deepcopy(model)), Scorer(in_float64(model))
    wanted, got = completion_scores(plain, SEQUENCES), scores(fast, tree())
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    (wanted @ SLOPE).backward()
    (got @ SLOPE).backward()
    assert relative_difference(flat_gradient(model), flat_gradient(plain)) <= 1e-12


@pytest.mark.parametrize("shape", TINY)
def test_float32_scores_equal_the_models_own_forward(shape: str, tiny_model: MakeModel) -> None:
    """To 1e-5 of the largest score; a score is a sum of up to eight log-probs."""
    model = tiny_model(shape)
    with torch.no_grad():
        own = completion_scores(model, SEQUENCES)
        got = scores(Scorer(model), tree())
    assert (got - own).abs().max() <= 1e-5 * own.abs().max()


@pytest.mark.parametrize("shape", TINY)
def test_embeddings_given_in_place_of_ids_give_the_same_scores(shape: str, tiny_model: MakeModel) -> None:
    scorer, prepared = Scorer(tiny_model(shape)), tree()
    with torch.no_grad():
        embeddings = scorer.model.get_input_embeddings()(prepared.ids_T)
        torch.testing.assert_close(scores(scorer, prepared, embeddings), scores(scorer, prepared), rtol=0, atol=0)
        assert (scores(scorer, prepared, 2 * embeddings.roll(1, 0)) - scores(scorer, prepared)).abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_under_autocast_scores_and_gradients_err_at_most_twice_as_much_as_the_models_own(
    shape: str, tiny_model: MakeModel
) -> None:
    """In norm over all completions and over all parameters; trees padded as the scorer would have them."""
    model = tiny_model(shape)
    scorer = Scorer(copy.deepcopy(model), autocast=torch.bfloat16)
    exact_model = in_plain_float64(copy.deepcopy(model))
    got = scores(scorer, tree(scorer.node_multiple))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        own = completion_scores(model, SEQUENCES)
    exact = completion_scores(exact_model, SEQUENCES)
    rounding = torch.finfo(torch.bfloat16).eps / 2
    assert (got - exact).norm() <= 2 * (own - exact).norm() + rounding * exact.norm()
    for score in (got, own, exact):
        (score.double() @ SLOPE).backward()
    wanted = flat_gradient(exact_model)
    own_error = relative_difference(flat_gradient(model), wanted)
    assert relative_difference(flat_gradient(scorer), wanted) <= 2 * own_error + rounding


@pytest.mark.parametrize("shape", TINY)
def test_a_frozen_scorer_has_the_same_scores_under_autocast(shape: str, tiny_model: MakeModel) -> None:
    """To the last bit, so that log-ratios are 0 before the first update."""
    policy, reference = (Scorer(tiny_model(shape), autocast=torch.bfloat16) for _ in range(2))
    prepared = tree(policy.node_multiple)
    with torch.no_grad():
        torch.testing.assert_close(scores(reference.frozen(), prepared), scores(policy, prepared), rtol=0, atol=0)


@pytest.mark.parametrize("shape", TINY)
def test_padding_does_not_change_scores(shape: str, tiny_model: MakeModel) -> None:
    scorer = Scorer(in_float64(tiny_model(shape)))
    with torch.no_grad():
        torch.testing.assert_close(scores(scorer, tree(64)), scores(scorer, tree()), rtol=0, atol=1e-12)


def test_separate_sequences_of_a_llama_equal_its_tree(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    prepared = tree()
    separate = Scorer(in_plain_float64(copy.deepcopy(model)), path="separate")
    by_tree = Scorer(in_float64(model))
    got, wanted = scores(separate, prepared), scores(by_tree, prepared)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    (got @ SLOPE).backward()
    (wanted @ SLOPE).backward()
    assert relative_difference(flat_gradient(separate), flat_gradient(by_tree)) <= 1e-12


@pytest.mark.parametrize("shape", SEPARATE)
def test_separate_sequences_have_the_scores_and_gradients_of_the_models_own_forward(
    shape: str, tiny_model: MakeModel
) -> None:
    model = in_float64(tiny_model(shape))
    by_itself = in_float64(tiny_model(shape))
    got, wanted = scores(Scorer(model), tree()), completion_scores(by_itself, SEQUENCES)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    (got @ SLOPE).backward()
    (wanted @ SLOPE).backward()
    assert relative_difference(flat_gradient(model), flat_gradient(by_itself)) <= 1e-12


@pytest.mark.parametrize("shape", SHAPES)
def test_activation_checkpointing_does_not_change_the_gradient(shape: str, tiny_model: MakeModel) -> None:
    """The tree must reach the attention again where it is recomputed in backward."""
    gradients: list[Tensor] = []
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved[-1] += tensor.numel()
        return tensor

    for checkpointing in (False, True):
        model = in_float64(tiny_model(shape))
        scorer = Scorer(model)
        saved.append(0)
        if checkpointing:
            scorer.recompute_activations()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            (scores(scorer, tree()) @ SLOPE).backward()
        gradients.append(flat_gradient(model))
    assert relative_difference(*gradients) <= 1e-12
    assert saved[1] < saved[0]


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        {"rope_type": "dynamic", "factor": 4.0},
    ],
    ids=lambda rope: str(rope["rope_type"]),
)
def test_positions_that_depend_on_the_length_of_the_call_are_exact_or_refused(
    rope: dict[str, object], tiny_model: MakeModel
) -> None:
    """Sequences here are shorter and longer than the 12 tokens at which these frequencies change."""
    length = {"rope_theta": 10000.0, "original_max_position_embeddings": 12}
    model = tiny_model("llama", rope_parameters=rope | length, max_position_embeddings=12)
    with pytest.raises(ModelError, match="--max-length 12"):
        scores(Scorer(copy.deepcopy(model)), tree())
    short = [s for s in SEQUENCES if len(s.ids) <= 12]
    with torch.no_grad():
        own = torch.cat([completion_scores(copy.deepcopy(model), [s]) for s in short])
        got = scores(Scorer(model), PreparedTree(TokenTree.build(short)))
    assert len(short) >= 2
    assert (got - own).abs().max() <= 1e-5 * own.abs().max()


@pytest.mark.parametrize("shape", ["mixtral", "granite_hybrid"])
def test_training_without_the_router_loss_that_a_model_asks_for_is_refused(shape: str, tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model(shape, output_router_logits=True, router_aux_loss_coef=0.001))
    with pytest.raises(ModelError, match=r"router loss of weight 0\.001 .* set output_router_logits to false"):
        scorer(tree())
    with torch.no_grad():
        same = scores(Scorer(tiny_model(shape)), tree())
        torch.testing.assert_close(scores(scorer, tree()), same, rtol=0, atol=0)


def test_each_type_of_layer_limits_the_calls_in_which_its_positions_are_exact(tiny_model: MakeModel) -> None:
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    dynamic = {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 12, "rope_theta": 10000.0}
    model = tiny_model("gemma3", rope_parameters={"sliding_attention": rope, "full_attention": dynamic})
    assert exact_up_to(model.config) == 12


def test_asking_a_tree_of_mamba_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ModelError, match="mamba models cannot be scored as a tree"):
        Scorer(tiny_model("mamba"), path="tree")
