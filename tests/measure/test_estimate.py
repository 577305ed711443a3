"""Claims about what a run is said to take: weights counted against a real model, operations and bytes by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, PreTrainedModel

from conftest import TINY
from kilter.data.records import Labelled, Origin, Pair
from kilter.errors import ModelError
from kilter.measure.estimate import SHARE_OF_PEAK, Estimate, config_of, estimate, positions_of, shape_of
from kilter.measure.token_facts import token_facts
from kilter.model.head import CHUNK_LOGITS
from measure.words import word_tokenizer

SHAPE = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
# Attention's four matrices, the MLP's three, two norms a layer; and one more norm.
BLOCKS = 2 * (4 * 8 * 8 + 3 * 8 * 12 + 2 * 8) + 8


def config(**changes: Any) -> Any:
    return AutoConfig.for_model("llama", **SHAPE, pad_token_id=None, bos_token_id=0, eos_token_id=0, **changes)


def estimated(method: str = "pairs", **settings: Any) -> Estimate:
    rows = [Pair("a b c", "d", "e f", Origin("rows", 1))] * 3
    facts = token_facts(rows, word_tokenizer(), style="auto", max_prompt=None, longest=None)
    given: dict[str, Any] = {
        "rows": 3, "batch_size": 2, "node_budget": 64, "precision": "float32", "device_name": "cpu", "rate": 1e6,
    }  # fmt: skip
    return estimate(facts, config(tie_word_embeddings=False), method=method, **given | settings)


@pytest.mark.parametrize("shape", ["llama", "llama_tied", "qwen3", "gemma2", "gpt2", "opt", "mixtral", "gpt_neox"])
def test_parameters_are_those_of_the_model(shape: str, tiny_model: Callable[..., PreTrainedModel]) -> None:
    kind, settings = TINY[shape]
    told = shape_of(AutoConfig.for_model(kind, **settings))
    model = tiny_model(shape)
    assert told.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert told.head == model.get_output_embeddings().weight.numel()
    assert (told.layers, told.hidden) == (2, 32)
    assert told.key_value == 2 * 8 * int(getattr(model.config, "num_key_value_heads", None) or 4)


def test_of_a_mixture_a_token_meets_its_own_experts(tiny_model: Callable[..., PreTrainedModel]) -> None:
    kind, settings = TINY["mixtral"]
    told = shape_of(AutoConfig.for_model(kind, **settings))
    experts = 2 * 4 * 3 * 32 * settings["intermediate_size"]  # layers, experts, matrices
    embeddings = 2 * 32 * settings["vocab_size"]
    assert told.active == told.parameters - embeddings - experts + experts * 2 // 4


def test_operations_are_two_a_weight_and_node_forward_and_twice_that_backward() -> None:
    told = estimated()
    # Three rows of 5 + 6 tokens that share 3; answers of 2 and 3 tokens with EOS.
    nodes, tokens, scored = 3 * 8, 3 * 11, 3 * 5 * 8 / 11
    attention = 2 * 2 * 8 * 3 * (5 * 5 + 6 * 6) * nodes / tokens
    forward = 2 * BLOCKS * nodes + 2 * 10 * 8 * scored + attention
    assert told.operations == pytest.approx(4 * forward)
    assert told.seconds == pytest.approx(4 * forward / (SHARE_OF_PEAK * 1e6))
    assert estimated("demonstrations").operations == pytest.approx(3 * forward)
    assert told.steps == 2


def test_memory_is_the_sum_of_what_is_named() -> None:
    told = estimated()
    weights = 4 * (BLOCKS + 2 * 10 * 8)
    assert (told.weights, told.gradients, told.moments, told.reference) == (weights, weights, 2 * weights, weights)
    assert told.logits == 16 * CHUNK_LOGITS
    # 24 nodes, 2 layers, 6 x 8 hidden + 2 x 8 keys and values + 3 x 12 inner units of 4 bytes, and 1.6 times that.
    assert told.activations == int(1.6 * 4 * 24 * 2 * (6 * 8 + 2 * 8 + 3 * 12))
    parts = told.weights + told.gradients + told.moments + told.reference + told.activations + told.logits
    assert told.memory > parts
    assert estimated("demonstrations").reference == 0
    assert estimated(node_budget=12).activations == told.activations // 2


def test_the_rate_is_measured_where_it_is_not_given() -> None:
    told = estimated(rate=None)
    assert told.measured_rate > 1e8
    assert told.device == "cpu"


def test_a_labelled_answer_goes_through_the_models_more_often() -> None:
    labelled = [Labelled("a b c", "d", True, Origin("rows", 1))]
    facts = token_facts(labelled, word_tokenizer(), style="auto", max_prompt=None, longest=None)
    given: dict[str, Any] = {"rows": 1, "batch_size": 1, "node_budget": 64, "precision": "float32"}
    by_method = {
        method: estimate(facts, config(), method=method, device_name="cpu", rate=1.0, **given).operations
        for method in ("pairs", "labelled")
    }
    assert by_method["labelled"] / by_method["pairs"] == pytest.approx(7 / 4)


def test_a_directory_without_a_configuration_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no configuration"):
        config_of(str(tmp_path))
    config().save_pretrained(tmp_path)
    assert positions_of(str(tmp_path)) == 2048
