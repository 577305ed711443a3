"""The proof lets honest models pass, and catches and names each way in which a path can be wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from conftest import TINY
from kilter.errors import ProofError
from kilter.model import attention, head, llama, prepared, proof
from kilter.model.architectures import ARCHITECTURES, Architecture
from kilter.model.blocks import Block
from kilter.model.prepared import PreparedTree
from kilter.model.proof import (
    ProofWarning,
    ensure_proven,
    layer_kinds,
    representative_layers,
    sample_texts,
    shrunken_config,
    shrunken_twin,
)
from kilter.model.scorer import Scorer
from kilter.tokens.tree import TokenTree

MakeModel = Callable[..., PreTrainedModel]


def passes(model: PreTrainedModel, **options: Any) -> Scorer:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ensure_proven(model, **options)


def assert_caught(model: PreTrainedModel, part: str) -> None:
    """Strict stops, naming the part; otherwise separate sequences are taken with a warning, and score rightly."""
    before = model.config._attn_implementation
    with pytest.raises(ProofError, match=rf"token tree .* in the {part}.*--strict"):
        ensure_proven(model, strict=True)
    assert model.config._attn_implementation == before
    with pytest.warns(ProofWarning, match=rf"in the {part}.*separate sequences"):
        scorer = ensure_proven(model)
    assert scorer.path == "separate"
    assert model.config._attn_implementation == before
    assert_scores_are_its_own(scorer)


def assert_scores_are_its_own(scorer: Scorer) -> None:
    texts = sample_texts(scorer.model.config.vocab_size)
    tree = PreparedTree(TokenTree.build(texts))
    with torch.no_grad():
        ours = tree.sum_edges(scorer(tree)[0])
        scorer.model.set_attn_implementation("eager")
        for text, score in zip(texts, ours, strict=True):
            ids = torch.tensor(text.ids, dtype=torch.long)
            log_p = scorer.model(ids[None]).logits[0].log_softmax(-1)
            own = log_p[range(text.first - 1, len(ids) - 1), ids[text.first :]].sum()
            assert float(score) == pytest.approx(float(own), abs=1e-4)


def model_of(kind: str, **settings: Any) -> PreTrainedModel:
    """A small seeded model of a type that kilter does not list."""
    small = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    special = {"num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **small | special | settings)
        ).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("shape", TINY)
def test_an_honest_model_passes_in_silence_by_its_own_path(shape: str, tiny_model: MakeModel) -> None:
    model = tiny_model(shape)
    scorer = passes(model)
    assert scorer.path == ARCHITECTURES[model.config.model_type].path
    assert_scores_are_its_own(scorer)


def test_an_unlisted_model_passes_as_separate_sequences() -> None:
    assert passes(model_of("phi")).path == "separate"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_judged_by_their_own_rounding(
    dtype: torch.dtype, tiny_model: MakeModel
) -> None:
    assert passes(tiny_model("llama").to(dtype)).path == "tree"


def test_autocast_is_handed_on(tiny_model: MakeModel) -> None:
    assert passes(tiny_model("llama"), autocast=torch.bfloat16).autocast is torch.bfloat16


def test_a_proof_can_be_repeated_on_a_model_in_tree_attention(tiny_model: MakeModel) -> None:
    model = tiny_model("llama")
    assert passes(passes(model).model).path == "tree"


def test_a_proof_leaves_the_random_state_the_gradients_and_the_mode(tiny_model: MakeModel) -> None:
    model = tiny_model("gpt2", attn_pdrop=0.1).train()
    state = torch.get_rng_state()
    passes(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


# The texts and the twin


def test_the_texts_branch_midway_under_two_roots_with_one_answer_inside_another() -> None:
    tree = TokenTree.build(sample_texts(32))
    assert (tree.parent_T < 0).sum() == 2
    assert len(tree) == 6 + 2 + 3 + 3 + 4 + 7
    first, inside, second, *_ = (tree.path(int(last)) for last in tree.last_C)
    assert set(inside) < set(first)
    assert len(set(first) & set(second)) == 8
    assert len(first) > proof.WINDOW


def test_the_twins_tree_is_long_enough_to_merge_partial_softmaxes() -> None:
    tree = PreparedTree(TokenTree.build(sample_texts(proof.VOCABULARY, proof.TWIN_STRETCH)))
    blocks = tree.blocks(None, torch.float32)
    assert sum(block.queries.stop - block.queries.start for block in blocks) > len(tree)


def test_a_twin_keeps_one_layer_of_each_kind_grouped_heads_caps_and_tying() -> None:
    config = AutoConfig.for_model("gemma2")
    small = shrunken_config(config, representative_layers(config))
    assert small.layer_types == ["sliding_attention", "full_attention"]
    assert small.num_attention_heads == 2 * small.num_key_value_heads
    assert (small.sliding_window, small.hidden_size, small.num_hidden_layers) == (4, 64, 2)
    assert (small.attn_logit_softcapping, small.tie_word_embeddings) == (50.0, True)
    assert config.num_hidden_layers == 26


def test_a_twin_keeps_layers_that_only_their_numbers_tell_apart(tiny_model: MakeModel) -> None:
    model = tiny_model("deepseek_v3", num_hidden_layers=6, first_k_dense_replace=3)
    dense, routed = layer_kinds(model)[2:4]
    assert "DeepseekV3MoE" in routed - dense
    assert layer_kinds(shrunken_twin(model)) == [dense, dense, dense, routed]


def test_a_twin_keeps_latent_ranks_apart_and_routes_to_some_experts_only(tiny_model: MakeModel) -> None:
    small = shrunken_twin(tiny_model("deepseek_v3", n_routed_experts=32, num_experts_per_tok=8)).config
    assert small.qk_nope_head_dim + small.qk_rope_head_dim != small.v_head_dim
    assert (small.n_routed_experts, small.num_experts_per_tok, small.n_group, small.topk_group) == (8, 2, 2, 1)


def test_a_twin_without_experts_stays_without(tiny_model: MakeModel) -> None:
    model = tiny_model("granite_hybrid", num_local_experts=0)
    assert set(layer_kinds(shrunken_twin(model))) == set(layer_kinds(model))
    assert passes(model).path == "separate"


def test_a_twin_has_long_rotary_factors_for_its_own_width(tiny_model: MakeModel) -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 24, "long_factor": [4.0] * 24, "factor": 32.0}
    length = {"rope_theta": 10000.0, "original_max_position_embeddings": 4096}
    model = tiny_model("phi3", hidden_size=192, head_dim=48, rope_parameters=rope | length)
    assert passes(model).path == "tree"


def test_a_twin_is_the_same_each_time(tiny_model: MakeModel) -> None:
    first, second = (shrunken_twin(tiny_model("mamba", seed=seed)) for seed in (0, 1))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))


# Positions


@pytest.mark.parametrize("shape", ["gpt2", "llama", "mistral", "gemma3", "opt", "deepseek_v3"])
def test_positions_that_count_nodes_instead_of_depth_are_caught(
    shape: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = PreparedTree.__init__

    def counted(self: PreparedTree, *arguments: Any) -> None:
        prepare(self, *arguments)
        self.depth_T = torch.arange(len(self))

    monkeypatch.setattr(PreparedTree, "__init__", counted)
    assert_caught(tiny_model(shape, max_position_embeddings=512), "positions")


# Attention


def with_changed(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    right = attention.tree_attention
    monkeypatch.setattr(attention, "tree_attention", lambda *given, **options: right(*given, **options | changes))


@pytest.mark.parametrize("cap", [5.0, 50.0])
def test_a_soft_cap_that_attention_ignores_is_caught(
    cap: float, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_changed(monkeypatch, softcap=None)
    assert_caught(tiny_model("gemma2", attn_logit_softcapping=cap), "attention: 4 tokens by themselves")


def test_a_scale_that_attention_ignores_is_caught(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with_changed(monkeypatch, scale=None)
    assert_caught(tiny_model("gemma2", query_pre_attn_scalar=9), "attention: 4 tokens by themselves")


@pytest.mark.parametrize("shape", ["mistral", "qwen2", "gemma2", "gemma3", "phi3", "cohere2", "mixtral", "gpt_oss"])
def test_a_window_that_attention_ignores_is_caught(
    shape: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_changed(monkeypatch, window=None)
    assert_caught(tiny_model(shape), "attention: 11 tokens, beyond the sliding window of 4,")


def test_sinks_that_attention_ignores_are_caught(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with_changed(monkeypatch, sinks=None)
    assert_caught(tiny_model("gpt_oss"), "attention: 4 tokens by themselves")


def test_sinks_that_get_no_gradient_are_caught(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.tree_attention

    def cut(*given: Any, sinks: Tensor, **options: Any) -> Tensor:
        return right(*given, sinks=sinks.detach(), **options)

    monkeypatch.setattr(attention, "tree_attention", cut)
    assert_caught(tiny_model("gpt_oss"), "gradient: none reaches .*sinks")


def test_siblings_that_see_each_other_are_caught(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "attention_blocks", lambda tree, _: [Block(0, len(tree), 0, len(tree), None)])
    assert_caught(tiny_model("llama"), "attention: in a branched tree, .* sees . nodes that are not before it")


def test_branches_that_do_not_see_their_prompt_are_caught(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alone(tree: TokenTree, _: int | None) -> list[Block]:
        starts = [*tree.segment_starts().tolist(), len(tree)]
        return [Block(s, e, s, e, None) for s, e in pairwise(starts)]

    monkeypatch.setattr(prepared, "attention_blocks", alone)
    assert_caught(tiny_model("llama"), "attention: in a branched tree, .* does not see")


def test_partial_softmaxes_that_are_merged_wrongly_are_caught(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "logaddexp", torch.maximum)
    assert_caught(tiny_model("llama"), "attention: only a large tree")


@pytest.mark.parametrize(("kind", "settings"), [("stablelm", {"num_key_value_heads": 2}), ("gptj", {"rotary_dim": 4})])
def test_a_model_that_is_listed_by_mistake_is_caught(
    kind: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, kind, Architecture("tree", ""))
    assert_caught(model_of(kind, **settings), "attention")


# The head: no path is right without it


def assert_refused(model: PreTrainedModel, part: str) -> None:
    for strict in (True, False):
        with pytest.raises(ProofError, match=rf"in the {part}"):
            ensure_proven(model, strict=strict)


@pytest.mark.parametrize("shape", ["gemma2", "gemma3", "cohere", "cohere2", "granite", "granite_hybrid"])
def test_a_soft_cap_or_scale_that_the_head_ignores_is_refused(
    shape: str, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _ = TINY[shape]
    monkeypatch.setitem(ARCHITECTURES, kind, ARCHITECTURES[kind]._replace(logits=None))
    assert_refused(tiny_model(shape), "head")


def test_a_dropped_head_bias_is_refused(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head.LogitsHead, "linear", property(lambda self: self.module))
    assert_refused(tiny_model("gptj"), "head")


def with_adapted_head(model: PreTrainedModel) -> PreTrainedModel:
    """The same with LoRA on its head, as far from zero as it would be in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inject_adapter_in_model(LoraConfig(target_modules=["lm_head"], init_lora_weights=False), model)
    return model.eval()


def test_an_adapter_on_the_head_passes(tiny_model: MakeModel) -> None:
    scorer = passes(with_adapted_head(tiny_model("llama")))
    assert scorer.path == "tree"
    assert_scores_are_its_own(scorer)


def test_an_adapter_on_the_head_that_is_ignored_is_refused(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin, made from the configuration alone, has no adapter; the real weights show it."""
    monkeypatch.setattr(
        Scorer, "head", property(lambda self: head.LogitsHead(_frozen_base(self.model.get_output_embeddings())))
    )
    assert passes(tiny_model("llama")).path == "tree"
    assert_refused(with_adapted_head(tiny_model("llama")), "head")


def _frozen_base(module: Any) -> Any:
    return getattr(module, "base_layer", module)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("granitemoe", {"logits_scaling": 8.0}),
        ("recurrent_gemma", {"num_key_value_heads": 2, "head_dim": 8}),
        ("bert", {}),
    ],
)
def test_an_unlisted_model_that_does_more_to_its_logits_is_refused(kind: str, settings: dict[str, Any]) -> None:
    assert_refused(model_of(kind, **settings), "head")


def test_attention_to_what_comes_after_is_refused(tiny_model: MakeModel) -> None:
    assert_refused(tiny_model("gemma3", use_bidirectional_attention=True), "attention")


def test_what_only_the_real_weights_show_is_refused(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    forward = model.forward

    def scaled(*given: Any, **options: Any) -> Any:
        output = forward(*given, **options)
        output.logits = 2 * output.logits
        return output

    monkeypatch.setattr(model, "forward", scaled)
    assert_refused(model, "head")


# Gradients


@pytest.mark.parametrize("part", [llama._NormLinear, llama._AddLinear, llama._Rotate])
def test_a_layers_own_backward_that_is_off_by_a_hundredth_is_caught(
    part: Any, tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = part.backward

    def off(ctx: Any, *gradients: Tensor) -> Any:
        first, *rest = right(ctx, *gradients)
        return 1.01 * first, *rest

    monkeypatch.setattr(part, "backward", staticmethod(off))
    assert_caught(tiny_model("llama"), "gradient: that of .* is off by")


def test_a_parameter_that_attention_cuts_off_is_caught(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.tree_attention
    monkeypatch.setattr(
        attention, "tree_attention", lambda q, k, value, tree, **options: right(q, k, value.detach(), tree, **options)
    )
    assert_caught(tiny_model("llama"), "gradient: none reaches .*v_proj.weight")


def test_a_gradient_that_is_off_by_a_thousandth_is_caught(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = attention.tree_attention

    def tilted(query: Tensor, key: Tensor, *given: Any, **options: Any) -> Tensor:
        return right(query, key + 0.001 * (key - key.detach()), *given, **options)

    monkeypatch.setattr(attention, "tree_attention", tilted)
    assert_caught(tiny_model("llama"), "gradient: that of .* is off by")


def test_a_head_that_gets_no_gradient_is_refused(tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = head._LinearLogProb.finish
    monkeypatch.setattr(head._LinearLogProb, "finish", lambda self: [torch.zeros_like(sum_) for sum_ in finish(self)])
    assert_refused(tiny_model("llama"), "gradient: none reaches lm_head.weight")
    assert_refused(tiny_model("llama_tied"), "gradient: that of model.embed_tokens.weight is off")


# No twin


def test_a_model_without_a_twin_is_checked_but_for_its_gradients(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "HEAD_DIM", 0)
    with pytest.warns(ProofWarning, match="no small twin .*not its gradients"):
        assert ensure_proven(tiny_model("llama")).path == "tree"
    with pytest.raises(ProofError, match="no small twin"):
        ensure_proven(tiny_model("llama"), strict=True)


def test_the_proof_asks_for_a_difference_beyond_rounding() -> None:
    assert not proof.Difference(1e-6, 1e-5)
    assert proof.Difference(1e-4, 1e-5)
    assert proof.Difference(np.nan, 1e-5)
