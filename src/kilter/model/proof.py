"""Trust by proof: a model's scores are compared with its own forward before anyone relies on them.

The oracle is the model alone: one unpadded sequence at a time, its own attention, its own logits, its own autograd.
Against it stands the Scorer, first on a shrunken twin of the model (forward and backward, window and all), then on
the real weights (forward, a few short texts). Only when they differ is it asked which part is to blame.

Axes: T nodes, M scored nodes, N rows given to the head, C completions, E edges, D hidden.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kilter.errors import ModelError, ProofError
from kilter.model.architectures import Path, architecture_of, rotary_settings
from kilter.model.attention import NAME as TREE_ATTENTION
from kilter.model.head import head_rows
from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import Targets
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

# How far rounding may part honest scores: log-probs in units of the largest (of 1 nat at least), each parameter's
# gradient in units of its own norm. Over every row of ARCHITECTURES, and 30 layers of 576 with random weights, float32
# gave at most 1.2e-6 and 4e-6; a pretrained model gave 0.003 in bfloat16 and 0.0004 in float16. Twins are float32.
LOG_PROB_TOLERANCE = {torch.float64: 2e-5, torch.float32: 2e-5, torch.float16: 0.005, torch.bfloat16: 0.04}
GRADIENT_TOLERANCE = 3e-5
# Beside the largest gradient, one this small is measured in units of this, for its rounding is that of larger ones;
# and one of NO_GRADIENT is rounding itself, as that of a bias which a softmax cancels.
FAINT, NO_GRADIENT = 1e-2, 1e-5

# The twin's sizes, and the size of its weights' products with inputs of size 1.
WINDOW, HEAD_DIM, VOCABULARY, EXPERTS, GAIN = 4, 16, 32, 8, 1.5
# So long that a tree's attention is cut into blocks (model/blocks.py), whose softmaxes are merged.
TWIN_STRETCH = 12


class ProofWarning(UserWarning):
    """A proof that failed or could not be made in full, and what is done about it."""


class Failure(NamedTuple):
    """The part of the scoring that is to blame, and what showed it."""

    part: Literal["head", "attention", "positions", "gradient"]
    found: str

    def __str__(self) -> str:
        return f"{self.part}: {self.found}"


class Difference(NamedTuple):
    """The largest difference of two sets of log-probs, and how much of it rounding explains, in nats."""

    nats: float
    rounding: float

    def __bool__(self) -> bool:
        return not self.nats <= self.rounding  # NaN differs

    def __str__(self) -> str:
        return f"up to {self.nats:.2g} nats, of which rounding explains {self.rounding:.1g}"


def ensure_proven(model: PreTrainedModel, *, autocast: torch.dtype | None = None, strict: bool = False) -> Scorer:
    """A scorer whose path was seen to give the model's own scores and gradients.

    Where the path of the model's architecture fails, separate sequences take its place with a ProofWarning, or with
    `strict` a ProofError is raised. Where those fail too it always is: wrong scores are never returned.
    """
    # The proof runs without autocast, which rounds both sides alike and would only hide what is looked for.
    path = architecture_of(model.config).path
    twin = _twin_if_any(model, strict)
    failure = disproof(model, twin, path)
    if failure is None:
        return Scorer(model, path=path, autocast=autocast)
    found = f"{type(model).__name__} scored as {_METHOD[path]} disagrees with its own forward in the {failure}"
    if path == "separate":
        raise ProofError(f"{found}; kilter cannot score this model")
    if strict:
        raise ProofError(f"{found}; without --strict it is scored as {_METHOD['separate']}, which is slower")
    second = disproof(model, twin, "separate")
    if second is not None:
        raise ProofError(f"{found}; so do {_METHOD['separate']}, in the {second}; kilter cannot score this model")
    warnings.warn(f"{found}; it is scored as {_METHOD['separate']}, which is slower", ProofWarning, stacklevel=2)
    return Scorer(model, path="separate", autocast=autocast)


_METHOD: dict[Path, str] = {"tree": "a token tree", "separate": "separate sequences"}


def _twin_if_any(model: PreTrainedModel, strict: bool) -> PreTrainedModel | None:
    try:
        return shrunken_twin(model)
    except ModelError as error:
        if strict:
            raise ProofError(f"{error}; without --strict its scores are proven, but not its gradients") from error
        warnings.warn(f"{error}; its scores are proven, but not its gradients", ProofWarning, stacklevel=3)
        return None


def disproof(model: PreTrainedModel, twin: PreTrainedModel | None, path: Path) -> Failure | None:
    """How a path disagrees with the model's own forward, on the twin or the real weights; None where it is right."""
    try:
        if twin is not None:
            texts = sample_texts(VOCABULARY, TWIN_STRETCH if path == "tree" else 1)
            if log_prob_difference(twin, path, texts):
                return diagnosis(twin, path)
            if failure := gradient_failure(twin, path, texts):
                return failure
        texts = sample_texts(_vocabulary(model))
        return diagnosis(model, path) if log_prob_difference(model, path, texts) else None
    except ModelError as refusal:
        if path == "separate":
            raise
        return Failure("attention", str(refusal))


def sample_texts(vocabulary: int, stretch: int = 1) -> list[TokenSequence]:
    """Answers that branch midway, one the beginning of another, and a second root; `stretch` lengthens every part."""
    draw = np.random.default_rng(0)
    prompt, start, end, other_end, other, root = (
        draw.integers(0, vocabulary, parts * stretch, dtype=np.int32) for parts in (6, 2, 3, 3, 4, 7)
    )
    answers = [[start, end], [start, end[:stretch]], [start, other_end], [other]]
    below = [TokenSequence(np.concatenate([prompt, *answer]), first=len(prompt)) for answer in answers]
    return [*below, TokenSequence(root, first=1)]


def own_log_probs(model: PreTrainedModel, texts: Sequence[TokenSequence]) -> list[Tensor]:
    """The oracle: the log-probs of each completion's tokens by the model's own forward, one text at a time."""
    log_probs = []
    for text in texts:
        ids = torch.from_numpy(text.ids).long().to(model.device)
        log_p = model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1, dtype=torch.float64)
        log_probs.append(log_p[text.first - 1 : -1].gather(-1, ids[text.first :, None])[:, 0])
    return log_probs


def tree_log_probs(scorer: Scorer, texts: Sequence[TokenSequence]) -> list[Tensor]:
    """The same by a scorer, from one tree."""
    tree = _tree(scorer, texts)
    (log_prob_M,) = scorer(tree)
    return list(log_prob_M[tree.edge_target_E].split(np.diff(tree.tree.edge_start_C).tolist()))


def log_prob_difference(model: PreTrainedModel, path: Path, texts: Sequence[TokenSequence]) -> Difference:
    """How far a path's log-probs are from the model's own."""
    with own_ways(model), torch.no_grad():
        own = torch.cat(own_log_probs(model, texts))
        return _difference(model, torch.cat(tree_log_probs(Scorer(model, path=path), texts)), own)


def gradient_failure(model: PreTrainedModel, path: Path, texts: Sequence[TokenSequence]) -> Failure | None:
    """The parameter whose gradient a path loses or gets wrong, if there is one."""
    with own_ways(model):
        own = _gradients(model, _contrast(torch.stack([log_prob.sum() for log_prob in own_log_probs(model, texts)])))
        scorer = Scorer(model, path=path)
        loss, _ = scorer.loss(_tree(scorer, texts), lambda sum_WC, _: _contrast(sum_WC[0]), None)
        ours = _gradients(model, loss)
    norm = {name: float(gradient.norm()) for name, gradient in own.items()}
    largest = max(norm.values())
    missing = [name for name in own if norm[name] > NO_GRADIENT * largest and not ours[name].any()]
    if missing:
        return Failure("gradient", f"none reaches {', '.join(missing)}")
    error = {name: float((ours[name] - own[name]).norm()) / max(norm[name], FAINT * largest) for name in own}
    wrong = {name: value for name, value in error.items() if not value <= GRADIENT_TOLERANCE}
    if not wrong:
        return None
    worst = max(wrong, key=wrong.__getitem__)
    return Failure("gradient", f"that of {worst} is off by {wrong[worst]:.2g} of its size")


def diagnosis(model: PreTrainedModel, path: Path) -> Failure:
    """The part that makes a path's log-probs wrong: what fails first as texts grow longer and meet in a tree."""
    texts = sample_texts(_vocabulary(model))
    longest = texts[0]
    if difference := head_difference(model, longest):
        return Failure("head", f"the model's own last hidden states give log-probs that differ by {difference}")
    if difference := log_prob_difference(model, path, [TokenSequence(longest.ids[:WINDOW], first=1)]):
        return Failure("attention", f"{WINDOW} tokens by themselves differ by {difference}")
    if difference := log_prob_difference(model, path, [longest]):
        window = getattr(model.config, "sliding_window", None)
        beyond = f", beyond the sliding window of {window}," if window and window < len(longest.ids) else ""
        return Failure("attention", f"{len(longest.ids)} tokens{beyond} by themselves differ by {difference}")
    if difference := log_prob_difference(model, path, texts):
        if astray := nodes_seen_astray(model, path, texts):
            return Failure("attention", f"in a branched tree, which differs by {difference}, {astray}")
        return Failure(
            "positions", f"a branched tree differs by {difference}, though each node sees just the nodes before it"
        )
    return Failure("attention", "only a large tree differs, whose attention is cut into blocks")


def head_difference(model: PreTrainedModel, text: TokenSequence) -> Difference:
    """How far kilter's head is from the model's own, given the model's own hidden states."""
    with own_ways(model), torch.no_grad():
        (own,) = own_log_probs(model, [text._replace(first=1)])
        ids = torch.from_numpy(text.ids).long().to(model.device)
        hidden_ND = model.base_model(input_ids=ids[None], use_cache=False)[0][0, :-1]
        targets = Targets(torch.arange(len(ids) - 1, device=ids.device), ids[1:])
        (log_prob,) = head_rows(Scorer(model, path="separate").head, hidden_ND, targets)
        return _difference(model, log_prob, own)


def nodes_seen_astray(model: PreTrainedModel, path: Path, texts: Sequence[TokenSequence]) -> str | None:
    """Whether a completion's last log-prob depends on a node that is not before it, or not on one just before it."""
    with own_ways(model):
        scorer = Scorer(model, path=path)
        tree = _tree(scorer, texts)
        embeddings_TD = model.get_input_embeddings()(tree.ids_T).detach().requires_grad_()
        (log_prob_M,) = scorer(tree, embeddings_TD=embeddings_TD)
        last_C = log_prob_M[tree.edge_target_E[tree.tree.edge_start_C[1:] - 1]]
        for log_prob, node in zip(last_C, tree.tree.last_C.tolist(), strict=True):
            (gradient_TD,) = torch.autograd.grad(log_prob, embeddings_TD, retain_graph=True)
            seen = set(gradient_TD.abs().sum(-1).nonzero()[:, 0].tolist())
            before = tree.tree.path(node)[:-1].tolist()
            if strangers := seen - set(before):
                return f"a completion sees {len(strangers)} nodes that are not before it"
            if unseen := set(before[-WINDOW:]) - seen:
                return f"a completion does not see {len(unseen)} of the {WINDOW} nodes before it"
    return None


@contextmanager
def own_ways(model: PreTrainedModel) -> Iterator[None]:
    """Begin with an attention that the model brought along, and no dropout; leave the model as it was.

    A model found in tree attention is left in the plainest of its own, so that it can be run by itself.
    """
    training, attention = model.training, model.config._attn_implementation
    own = attention if attention in ("eager", "sdpa", None) else "eager"
    model.eval()
    _use_attention(model, own)
    try:
        yield
    finally:
        model.train(training)
        _use_attention(model, own if attention == TREE_ATTENTION else attention)


def shrunken_twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same class and kind with a few hidden units, and random weights so large that all matter.

    Raises ModelError where the configuration cannot be shrunk.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            twin = _shrunken(model, representative_layers(model.config))
            kinds = layer_kinds(model)
            if set(kinds) - set(layer_kinds(twin)):  # told apart by their numbers, as "the first three are dense"
                twin = _shrunken(model, list(range(1 + max(kinds.index(kind) for kind in kinds))))
            with own_ways(twin), torch.no_grad():
                own_log_probs(twin, sample_texts(VOCABULARY))
        except Exception as error:  # whatever a class makes of sizes it did not expect
            reason = str(error).partition("\n")[0]
            raise ModelError(f"{type(model).__name__} has no small twin to be proven on ({reason})") from error
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                if parameter.ndim < 2 or "norm" in name:
                    parameter.add_(0.3 * torch.randn_like(parameter))
                else:
                    parameter.normal_(std=GAIN * parameter.shape[-1] ** -0.5)
    twin.to(model.device)  # type: ignore[arg-type]
    return twin


def _shrunken(model: PreTrainedModel, layers: list[int]) -> PreTrainedModel:
    twin: PreTrainedModel = type(model)(shrunken_config(model.config, layers)).float().eval()
    return twin


def shrunken_config(config: Any, layers: list[int]) -> Any:
    """A configuration of the layers named with small sizes, that keeps what makes the architecture: grouped heads,
    latent attention, routed experts, state spaces, biases, tying, activation, soft caps, rotary type, and a window (of
    4) where there is one."""
    config = copy.deepcopy(config)
    heads = getattr(config, "num_attention_heads", None) or 1
    key_heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads
    twin_key_heads = min(key_heads, 2)
    twin_heads = twin_key_heads * min(heads // key_heads, 4)
    width = HEAD_DIM * twin_heads
    state_heads = twin_heads * (getattr(config, "mamba_expand", None) or getattr(config, "expand", None) or 1)
    embedded = getattr(config, "word_embed_proj_dim", None) == getattr(config, "hidden_size", None)
    sizes = {
        "num_hidden_layers": len(layers),
        "num_attention_heads": twin_heads,
        "num_key_value_heads": twin_key_heads,
        "num_kv_heads": twin_key_heads,
        "head_dim": HEAD_DIM,
        "rotary_dim": HEAD_DIM // 2,
        "hidden_size": width,
        "word_embed_proj_dim": width if embedded else width // 2,
        "vocab_size": VOCABULARY,
        "sliding_window": WINDOW,
    }
    sizes |= dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 2 * width)
    sizes |= dict.fromkeys(("q_lora_rank", "kv_lora_rank"), HEAD_DIM)
    sizes |= dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), HEAD_DIM)
    sizes |= {"qk_head_dim": 2 * HEAD_DIM}
    sizes |= dict.fromkeys(("moe_intermediate_size", "shared_intermediate_size", "mamba_d_head"), HEAD_DIM)
    sizes |= dict.fromkeys(("mamba_n_heads", "num_heads"), state_heads)
    at_most = {"num_experts": EXPERTS, "num_local_experts": EXPERTS, "num_experts_per_tok": EXPERTS // 4}
    at_most |= {"n_group": 2, "topk_group": 1, "n_groups": 2, "mamba_n_groups": 2}
    per_layer = {name: [value[i] for i in layers] for name, value in _per_layer(config).items()}
    for name, value in (sizes | at_most | per_layer).items():
        stored = config.attribute_map.get(name, name)
        given = vars(config).get(stored)
        if given is not None:
            setattr(config, stored, min(given, value) if name in at_most else value)
    if getattr(config, "max_position_embeddings", None) is not None:  # room for the texts
        config.max_position_embeddings = max(config.max_position_embeddings, 32 * TWIN_STRETCH)
    for rope in rotary_settings(config):
        frequencies = int(HEAD_DIM * rope.get("partial_rotary_factor", 1)) // 2
        rope |= {name: factors[:frequencies] for name, factors in rope.items() if isinstance(factors, list)}
    config.pad_token_id = None
    config.output_router_logits = False
    return config


def layer_kinds(model: PreTrainedModel) -> list[frozenset[str]]:
    """What each layer is built of; nothing where the layers are not found."""
    count = model.config.num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return [frozenset(type(part).__name__ for part in layer.modules()) for layer in next(lists, ())]


def representative_layers(config: Any) -> list[int]:
    """The first layer of each kind that the configuration's per-layer lists tell apart; twice, if all are alike."""
    kinds = [str(kind) for kind in zip(*_per_layer(config).values(), strict=True)] or [""]
    first = sorted(kinds.index(kind) for kind in set(kinds))
    return first if len(first) > 1 else first * 2


def _per_layer(config: Any) -> dict[str, list[Any]]:
    count = config.num_hidden_layers
    return {name: value for name, value in vars(config).items() if isinstance(value, list) and len(value) == count}


def _use_attention(model: PreTrainedModel, name: str | None) -> None:
    if name is not None and name != model.config._attn_implementation:
        model.set_attn_implementation(name)


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().get_parameter("weight").shape[0])


def _tree(scorer: Scorer, texts: Sequence[TokenSequence]) -> PreparedTree:
    return PreparedTree(TokenTree.build(texts), scorer.device)


def _difference(model: PreTrainedModel, ours: Tensor, own: Tensor) -> Difference:
    type_ = torch.bfloat16 if getattr(model, "is_quantized", False) else model.dtype
    tolerance = LOG_PROB_TOLERANCE.get(type_, LOG_PROB_TOLERANCE[torch.bfloat16])
    rounding = tolerance * max(1.0, float(own.abs().max()))
    return Difference(float((ours - own).abs().max()), rounding)


def _contrast(score_C: Tensor) -> Tensor:
    """A loss that raises some completions, lowers others, and weighs each differently."""
    return score_C @ torch.linspace(1, -2, len(score_C)).to(score_C)


def _gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(trainable, gradients, strict=True))
