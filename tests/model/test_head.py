"""Claims about the head operator and the Scorer's losses, against full logits in float64.

Axes: N rows, M targets, V vocabulary, D hidden, C completions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from kilter.model import scorer as scorer_module
from kilter.model.head import Beside, LogitsHead, head_loss, head_rows
from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import (
    DIVERGENCES,
    ENTROPY,
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_PROB,
    REFERENCE_ENTROPY,
    REFERENCE_LOG_PROB,
    REFERENCE_TOP,
    TOP,
    RowFunction,
    Rows,
    Targets,
    alpha_divergence,
)
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import Ints, TokenTree
from model.plain import completion_scores, flat_gradient, in_float64, in_plain_float64, relative_difference

ROWS, VOCABULARY, WIDTH = 11, 19, 8
# Rows with one target, several, the same twice, and none.
ROW_M = torch.tensor([0, 0, 0, 1, 2, 2, 4, 5, 5, 5, 6, 7, 8, 8, 9, 10])
ID_M = torch.tensor([3, 1, 17, 0, 5, 5, 6, 18, 2, 9, 4, 4, 12, 13, 8, 7])
TARGETS = Targets(ROW_M, ID_M)
CHUNKS = [1, 7, ROWS]


def js_by_entropies(p: Tensor, q: Tensor) -> Tensor:
    entropy, of_p, of_q = (torch.special.entr(one).sum(-1) for one in ((p + q) / 2, p, q))
    return entropy - (of_p + of_q) / 2


FORMULAS: dict[RowFunction, Callable[[Tensor, Tensor], Tensor]] = {
    LOG_PROB: lambda p, q: p[ROW_M, ID_M].log(),
    ENTROPY: lambda p, q: torch.special.entr(p).sum(-1),
    REFERENCE_ENTROPY: lambda p, q: torch.special.entr(q).sum(-1),
    KL_POLICY_REFERENCE: lambda p, q: (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1),
    KL_REFERENCE_POLICY: lambda p, q: (torch.xlogy(q, q) - torch.xlogy(q, p)).sum(-1),
    REFERENCE_LOG_PROB: lambda p, q: q[ROW_M, ID_M].log(),
    DIVERGENCES["jeffreys"]: lambda p, q: ((p - q) * (p / q).log()).sum(-1),
    DIVERGENCES["js"]: js_by_entropies,
    DIVERGENCES["total_variation"]: lambda p, q: 0.5 * (p - q).abs().sum(-1),
    DIVERGENCES["squared_hellinger"]: lambda p, q: 1 - (p * q).sqrt().sum(-1),
    DIVERGENCES["chi2"]: lambda p, q: (p * p / q).sum(-1) - 1,
    DIVERGENCES["reverse_chi2"]: lambda p, q: (q * q / p).sum(-1) - 1,
    alpha_divergence(0.3): lambda p, q: ((p**0.3 * q**0.7).sum(-1) - 1) / (0.3 * -0.7),
    alpha_divergence(-1.5): lambda p, q: ((p**-1.5 * q**2.5).sum(-1) - 1) / (1.5 * 2.5),
}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Case(NamedTuple):
    """A head, and the tensors whose gradients are compared; `hidden` makes the hidden states from them anew."""

    head: LogitsHead
    leaves: list[Tensor]
    hidden: Callable[[], Tensor]


def linear(bias: bool = False, seed: int = 0) -> nn.Linear:
    module = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed + i))
    return module


def case(name: str) -> Case:
    hidden_ND = random(ROWS, WIDTH, seed=7).requires_grad_()
    module = linear(bias=name == "bias")
    if name == "tied":
        embedding = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64)
        embedding.weight = module.weight
        ids = torch.arange(ROWS) % 5
        return Case(LogitsHead(module), [module.weight], lambda: embedding(ids).tanh())
    if name == "frozen":
        module.requires_grad_(False)
        return Case(LogitsHead(module), [hidden_ND], lambda: hidden_ND)
    transform = {"soft cap": lambda logits: 2 * torch.tanh(logits / 2)}.get(name)
    return Case(LogitsHead(module, transform), [hidden_ND, *module.parameters()], lambda: hidden_ND)


NAMES = ["plain", "bias", "soft cap", "frozen", "tied"]
BESIDE = Beside(LogitsHead(linear(seed=3).requires_grad_(False)), random(ROWS, WIDTH, seed=9))
FUNCTIONS = list(FORMULAS)
OF_THE_REFERENCE = (REFERENCE_LOG_PROB, REFERENCE_ENTROPY)  # no gradient flows through them


def distributions(case: Case) -> tuple[Tensor, Tensor]:
    return tuple(head(hidden).softmax(-1) for head, hidden in ((case.head, case.hidden()), BESIDE))  # type: ignore[return-value]


def assert_same(got: list[Tensor], wanted: list[Tensor]) -> None:
    for fast, plain in zip(got, wanted, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


def test_log_prob_entropy_and_kl_of_one_row_are_those_worked_out_by_hand() -> None:
    """Logits (0, log 3) against (0, 0): p = (1/4, 3/4), q = (1/2, 1/2)."""
    head = LogitsHead(nn.Linear(1, 2, bias=False, dtype=torch.float64))
    with torch.no_grad():
        head.module.get_parameter("weight").copy_(torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64))
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    targets = Targets(torch.tensor([0, 0]), torch.tensor([0, 1]))
    results = head_rows(head, one, targets, FUNCTIONS, beside=Beside(head, zero))
    by_hand = [
        [math.log(1 / 4), math.log(3 / 4)],
        [math.log(4) - 0.75 * math.log(3)],
        [math.log(2)],
        [0.75 * math.log(3) - math.log(2)],
        [math.log(2) - 0.5 * math.log(3)],
        [math.log(1 / 2), math.log(1 / 2)],
        [0.25 * math.log(3)],
        [0.125 * math.log(2 / 3) + 0.375 * math.log(6 / 5) + 0.25 * math.log(4 / 3) + 0.25 * math.log(4 / 5)],
        [0.25],
        [1 - math.sqrt(1 / 8) - math.sqrt(3 / 8)],
        [0.25],
        [1 / 3],
    ]
    for got, wanted in zip(results, by_hand, strict=False):
        torch.testing.assert_close(got.detach(), torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("rows_per_chunk", CHUNKS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
@pytest.mark.parametrize("name", NAMES)
def test_rows_and_their_gradients_equal_those_of_full_logits(
    name: str, function: RowFunction, rows_per_chunk: int
) -> None:
    head, leaves, hidden = made = case(name)
    (got,) = head_rows(head, hidden(), TARGETS, [function], beside=BESIDE, rows_per_chunk=rows_per_chunk)
    wanted = FORMULAS[function](*distributions(made))
    assert_same([got.detach()], [wanted.detach()])
    if function in OF_THE_REFERENCE:
        return
    slope = random(len(wanted), seed=5)
    assert_same(
        list(torch.autograd.grad(got @ slope, leaves, materialize_grads=True)),
        list(torch.autograd.grad(wanted @ slope, leaves, materialize_grads=True)),
    )


@pytest.mark.parametrize("rows_per_chunk", CHUNKS)
@pytest.mark.parametrize("name", NAMES)
def test_functions_asked_together_equal_those_asked_one_by_one(name: str, rows_per_chunk: int) -> None:
    head, leaves, hidden = made = case(name)
    got = head_rows(head, hidden(), TARGETS, FUNCTIONS, beside=BESIDE, rows_per_chunk=rows_per_chunk)
    wanted = [FORMULAS[function](*distributions(made)) for function in FUNCTIONS]
    assert_same([g.detach() for g in got], [w.detach() for w in wanted])
    assert_same(
        list(torch.autograd.grad(sum((g**2).sum() for g in got), leaves)),
        list(torch.autograd.grad(sum((w**2).sum() for w in wanted), leaves)),
    )


def test_the_reference_stays_out_of_reach_of_gradients() -> None:
    reference = Beside(LogitsHead(linear(seed=3)), random(ROWS, WIDTH, seed=9).requires_grad_())
    head, _, hidden = case("plain")
    results = head_rows(head, hidden(), TARGETS, FUNCTIONS, beside=reference)
    sum(result.sum() for result in results).backward()
    assert reference.hidden_ND.grad is None
    assert reference.head.module.get_parameter("weight").grad is None


@pytest.mark.parametrize("rows_per_chunk", CHUNKS)
@pytest.mark.parametrize("factor", [1, -0.3])
@pytest.mark.parametrize("name", NAMES)
def test_a_loss_of_the_same_pass_equals_that_of_full_logits(name: str, factor: float, rows_per_chunk: int) -> None:
    head, leaves, hidden = made = case(name)
    weight = random(len(ID_M), seed=5)
    chunks = [slice(i, min(i + rows_per_chunk, ROWS)) for i in range(0, ROWS, rows_per_chunk)]
    loss, log_prob = head_loss(head, hidden(), TARGETS, lambda part, x: (weight[part] * x**2).sum(), chunks)
    wanted = FORMULAS[LOG_PROB](*distributions(made))
    assert_same([loss.detach(), log_prob], [(weight * wanted**2).sum().detach(), wanted.detach()])
    assert not log_prob.requires_grad
    assert_same(
        list(torch.autograd.grad(factor * loss, leaves)),
        list(torch.autograd.grad(factor * (weight * wanted**2).sum(), leaves)),
    )


MASKED = [2, 10, 11, 14]  # none of them a target but 2, of row 5
ALLOWED = [v for v in range(VOCABULARY) if v not in MASKED]


def masked_head(module: nn.Linear, tokens: Iterable[int] = MASKED) -> LogitsHead:
    return LogitsHead(module, lambda logits: logits.index_fill(-1, torch.tensor([*tokens]), -math.inf))


@pytest.mark.parametrize(
    "function",
    [function for function in FUNCTIONS if function not in OF_THE_REFERENCE],
    ids=lambda function: function.name,
)
def test_a_masked_vocabulary_is_one_without_those_tokens(function: RowFunction) -> None:
    """Values and gradients of logits at -inf are those of a head that lacks the masked rows."""
    module, hidden_ND = linear(), random(ROWS, WIDTH, seed=7).requires_grad_()
    leaves = [hidden_ND, module.weight]
    kept = torch.tensor([token not in MASKED for token in ID_M.tolist()])
    targets = Targets(ROW_M[kept], ID_M[kept])
    beside = Beside(masked_head(BESIDE.head.module), BESIDE.hidden_ND)  # type: ignore[arg-type]
    (got,) = head_rows(masked_head(module), hidden_ND, targets, [function], beside=beside, rows_per_chunk=4)

    p = (hidden_ND @ module.weight[ALLOWED].T).softmax(-1)
    q = (BESIDE.hidden_ND @ BESIDE.head.module.get_parameter("weight")[ALLOWED].T).softmax(-1)
    if function is LOG_PROB:
        wanted = p.log()[targets.row_M, torch.tensor([ALLOWED.index(v) for v in targets.id_M.tolist()])]
    else:
        wanted = FORMULAS[function](p, q)
    assert_same([got.detach()], [wanted.detach()])
    slope = random(len(wanted), seed=5)
    assert_same(list(torch.autograd.grad(got @ slope, leaves)), list(torch.autograd.grad(wanted @ slope, leaves)))


def test_a_masked_target_has_a_log_prob_of_minus_infinity() -> None:
    (got,) = head_rows(masked_head(linear()), random(ROWS, WIDTH, seed=7), TARGETS)
    assert torch.isneginf(got).tolist() == [token in MASKED for token in ID_M.tolist()]


def test_kl_to_a_reference_that_lacks_a_token_is_infinite_in_one_direction_only() -> None:
    beside = Beside(masked_head(BESIDE.head.module), BESIDE.hidden_ND)  # type: ignore[arg-type]
    head, _, hidden = case("plain")
    functions = [KL_POLICY_REFERENCE, KL_REFERENCE_POLICY]
    ours, theirs = head_rows(head, hidden(), TARGETS, functions, beside=beside)
    assert torch.isposinf(ours).all()
    assert torch.isfinite(theirs).all()


# Divergences that stay finite where q has tokens that p lacks: of p and q over the tokens that both have.
ONE_SIDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda p, q: (p * (p / q).log()).sum(-1),
    "js": lambda p, q: (
        (p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log()).sum(-1) + (1 - q.sum(-1)) * math.log(2)
    ) / 2,
    "total_variation": lambda p, q: ((p - q).abs().sum(-1) + 1 - q.sum(-1)) / 2,
    "squared_hellinger": lambda p, q: 1 - (p * q).sqrt().sum(-1),
    "chi2": lambda p, q: (p * p / q).sum(-1) - 1,
}  # fmt: skip


@pytest.mark.parametrize("name", DIVERGENCES)
def test_tokens_that_the_policy_alone_lacks_leave_values_and_gradients_right(name: str) -> None:
    module, hidden_ND = linear(), random(ROWS, WIDTH, seed=7).requires_grad_()
    leaves = [hidden_ND, module.weight]
    (got,) = head_rows(masked_head(module), hidden_ND, TARGETS, [DIVERGENCES[name]], beside=BESIDE, rows_per_chunk=4)
    if name not in ONE_SIDED:
        assert torch.isposinf(got).all()
        return
    p = (hidden_ND @ module.weight[ALLOWED].T).softmax(-1)
    wanted = ONE_SIDED[name](p, BESIDE.head(BESIDE.hidden_ND).softmax(-1)[:, ALLOWED].detach())
    assert_same([got.detach()], [wanted.detach()])
    slope = random(len(wanted), seed=5)
    assert_same(list(torch.autograd.grad(got @ slope, leaves)), list(torch.autograd.grad(wanted @ slope, leaves)))


BOUNDED = {"total_variation": 1.0, "squared_hellinger": 1.0, "js": math.log(2)}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_models_that_have_no_token_in_common_are_as_far_apart_as_can_be(name: str) -> None:
    """One has the tokens below 9, the other those from 9 on: each divergence is at its bound, or infinite."""
    parts = [masked_head(linear(seed=s), tokens) for s, tokens in enumerate((range(9), range(9, VOCABULARY)))]
    hidden_ND = random(ROWS, WIDTH, seed=7)
    (got,) = head_rows(parts[0], hidden_ND, TARGETS, [DIVERGENCES[name]], beside=Beside(parts[1], hidden_ND))
    torch.testing.assert_close(got.detach(), torch.full_like(got, BOUNDED.get(name, math.inf)))


@pytest.mark.parametrize("function", [*DIVERGENCES.values(), alpha_divergence(0.3)], ids=lambda f: f.name)
def test_a_model_beside_itself_is_at_exactly_zero(function: RowFunction) -> None:
    head, hidden = LogitsHead(linear().float()), 30 * random(ROWS, WIDTH, seed=7).float()
    (got,) = head_rows(head, hidden, TARGETS, [function], beside=Beside(head, hidden))
    assert got.tolist() == [0.0] * ROWS


@pytest.mark.parametrize("function", DIVERGENCES.values(), ids=lambda function: function.name)
def test_logits_of_ten_thousand_give_numbers_or_infinity_and_never_nan(function: RowFunction) -> None:
    head, hidden = LogitsHead(linear().float()), 1e4 * random(ROWS, WIDTH, seed=7).float()
    beside = Beside(head, 1e4 * random(ROWS, WIDTH, seed=8).float())
    (got,) = head_rows(head, hidden, TARGETS, [function], beside=beside)
    assert (got >= 0).all()
    if function.name in BOUNDED:
        assert (got <= BOUNDED[function.name] * (1 + 1e-6)).all()


def far_and_near(scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a vocabulary of 5,000, and the same with noise of some scale."""
    logits = 4 * random(ROWS, 5000, seed=seed)
    return logits, logits + scale * random(ROWS, 5000, seed=seed + 1)


@pytest.mark.parametrize("function", DIVERGENCES.values(), ids=lambda function: function.name)
@pytest.mark.parametrize("scale", [1e-3, 1e-1, 3.0])
def test_divergences_in_float32_keep_their_digits_where_models_barely_differ(
    scale: float, function: RowFunction
) -> None:
    """The smallest KL is 5e-7 nats, about what a float32 sum of p log(p / q) errs by."""
    z_p, z_q = (logits.float() for logits in far_and_near(scale))
    p, q = (logits.double().softmax(-1) for logits in (z_p, z_q))
    got = function.value(Rows(z_p.log_softmax(-1), z_q.log_softmax(-1)), TARGETS)
    wanted = FORMULAS[function](p, q)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-3 if scale < 0.01 else 1e-5, atol=0)


def test_the_likeliest_tokens_are_those_of_full_logits() -> None:
    head, _, hidden = made = case("plain")
    ours, theirs = head_rows(head, hidden(), TARGETS, [TOP, REFERENCE_TOP], beside=BESIDE, rows_per_chunk=4)
    p, q = distributions(made)
    assert (ours.tolist(), theirs.tolist()) == (p.argmax(-1).tolist(), q.argmax(-1).tolist())


def test_an_order_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a finite order"):
        alpha_divergence(math.nan)


def test_alpha_divergences_run_from_one_kl_to_the_other() -> None:
    assert alpha_divergence(1) is KL_POLICY_REFERENCE
    assert alpha_divergence(0) is KL_REFERENCE_POLICY
    z_p, z_q = far_and_near(1.0)
    rows = Rows(z_p.log_softmax(-1), z_q.log_softmax(-1))

    def value(function: RowFunction) -> Tensor:
        return function.value(rows, TARGETS)

    for order, limit in ((1 - 1e-7, KL_POLICY_REFERENCE), (1e-7, KL_REFERENCE_POLICY)):
        torch.testing.assert_close(value(alpha_divergence(order)), value(limit), rtol=1e-5, atol=0)
    torch.testing.assert_close(value(alpha_divergence(0.5)), 4 * value(DIVERGENCES["squared_hellinger"]))
    torch.testing.assert_close(value(alpha_divergence(2)), 0.5 * value(DIVERGENCES["chi2"]))


class LargestLogits(TorchDispatchMode):
    """The most rows of any tensor made that has a vocabulary axis, the head's weight and its gradient aside."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for out in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(out, Tensor) and VOCABULARY in out.shape and WIDTH not in out.shape:
                self.rows = max(self.rows, out.numel() // VOCABULARY)
        return result


@pytest.mark.parametrize("functions", [[LOG_PROB], FUNCTIONS], ids=["log-probs", "all"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_never_exist_whole_in_either_pass(name: str, functions: list[RowFunction]) -> None:
    head, leaves, hidden = case(name)
    with LargestLogits() as largest:
        results = head_rows(head, hidden(), TARGETS, functions, beside=BESIDE, rows_per_chunk=3)
        torch.autograd.grad(sum(result.sum() for result in results), leaves)
    assert largest.rows == 3
    with LargestLogits() as largest:
        chunks = [slice(0, 2), slice(2, 6), slice(6, ROWS)]
        loss, _ = head_loss(head, hidden(), TARGETS, lambda _, x: x.sum(), chunks)
        torch.autograd.grad(loss, leaves)
    assert largest.rows == 5


@pytest.mark.parametrize("rows_per_chunk", [1, 4])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_errs_at_most_twice_as_much_as_full_logits(
    dtype: torch.dtype, name: str, rows_per_chunk: int
) -> None:
    """Weights in float32, matrix products in `dtype`, gradients formed either way."""
    made = case(name)
    module, autocast = copy.deepcopy(made.head.module).float(), None if dtype == torch.float32 else dtype
    head, exact_head = (LogitsHead(m, made.head.transform, autocast) for m in (module, copy.deepcopy(module)))
    exact_head = LogitsHead(exact_head.module.double(), made.head.transform)
    hidden_ND, slope = made.hidden().detach().float().requires_grad_(), random(len(ID_M), seed=5).float()
    exact_hidden = hidden_ND.detach().double().requires_grad_()
    chunks = [slice(i, min(i + rows_per_chunk, ROWS)) for i in range(0, ROWS, rows_per_chunk)]

    def results(log_prob: Tensor, hidden: Tensor, head: LogitsHead, loss: Tensor | None = None) -> list[Tensor]:
        loss = log_prob @ slope.to(log_prob.dtype) if loss is None else loss
        return [log_prob.detach(), *torch.autograd.grad(loss, [hidden, *head.parameters])]

    (recomputed,) = head_rows(head, hidden_ND, TARGETS, rows_per_chunk=rows_per_chunk)
    loss, same_pass = head_loss(head, hidden_ND, TARGETS, lambda part, x: x @ slope[part], chunks)
    plain = results(head(hidden_ND).log_softmax(-1)[ROW_M, ID_M], hidden_ND, head)
    truth = results(exact_head(exact_hidden).log_softmax(-1)[ROW_M, ID_M], exact_hidden, exact_head)
    for fast in (results(recomputed, hidden_ND, head), results(same_pass, hidden_ND, head, loss)):
        assert_errs_at_most_twice_as_much(fast, plain, truth, dtype)


def assert_errs_at_most_twice_as_much(
    got: list[Tensor], same_type: list[Tensor], exact: list[Tensor], dtype: torch.dtype
) -> None:
    for fast, plain, truth in zip(got, same_type, exact, strict=True):
        rounding = torch.finfo(dtype).eps / 2 * truth.norm()
        assert (fast - truth).norm() <= 2 * (plain - truth).norm() + rounding


def test_a_head_gradient_gathered_over_many_chunks_errs_at_most_twice_as_much_as_in_one_product() -> None:
    """64 parts of one sign, added up in bfloat16."""
    head, exact_head = LogitsHead(linear().float(), None, torch.bfloat16), LogitsHead(linear())
    hidden_ND, id_M = random(512, WIDTH, seed=7), torch.arange(512) % VOCABULARY
    targets = Targets(torch.arange(512), id_M)

    def gradient(log_prob: Tensor, head: LogitsHead) -> list[Tensor]:
        return list(torch.autograd.grad(log_prob.sum(), head.parameters))

    (log_prob,) = head_rows(head, hidden_ND.float(), targets, rows_per_chunk=8)
    plain = gradient(head(hidden_ND.float()).log_softmax(-1)[targets], head)
    truth = gradient(exact_head(hidden_ND).log_softmax(-1)[targets], exact_head)
    assert_errs_at_most_twice_as_much(gradient(log_prob, head), plain, truth, torch.bfloat16)


def answers(*paths: tuple[list[int], list[int]]) -> list[TokenSequence]:
    return [TokenSequence(np.array(prompt + answer, np.int32), len(prompt)) for prompt, answer in paths]


def pairs(seed: int = 0, count: int = 6) -> list[TokenSequence]:
    """Chosen and rejected of pairs, in turn; most pairs share one of two prompts."""
    draw = np.random.default_rng(seed)
    prompts = [draw.integers(0, 40, 5).tolist() for _ in range(2)]
    return answers(*[(prompts[c // 2 % 2], draw.integers(0, 40, 3 + c % 4).tolist()) for c in range(2 * count)])


def pair_loss(score_C: Tensor, present_C: Tensor) -> Tensor:
    """The summed logistic loss of the pairs that are wholly present."""
    both = present_C[::2] & present_C[1::2]
    return -logsigmoid(0.3 * (score_C[::2] - score_C[1::2]))[both].sum()


SLOPE_C = torch.linspace(-1, 2, 12, dtype=torch.float64)


def linear_loss(score_C: Tensor, _: Tensor) -> Tensor:
    return (SLOPE_C * score_C).sum()


@pytest.mark.parametrize("shape", ["llama", "llama_tied", "gemma2"])
@pytest.mark.parametrize(
    ("loss_of_scores", "unit_C", "rows", "parts"),
    [
        (pair_loss, np.arange(12) // 2, 24, "several"),
        (pair_loss, np.arange(12) // 2, 1000, "one"),
        (pair_loss, np.zeros(12, np.int64), 2, "none"),
        (linear_loss, None, 5, "several"),
        (linear_loss, None, 1, "several"),
    ],
    ids=["pairs", "pairs in one chunk", "interleaved units", "linear", "linear by rows"],
)
def test_the_scorers_loss_equals_that_by_plain_autograd(
    shape: str,
    loss_of_scores: Callable[[Tensor, Tensor], Tensor],
    unit_C: Ints | None,
    rows: int,
    parts: str,
    tiny_model: Callable[..., PreTrainedModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scorer_module, "chunk_rows", lambda vocabulary: rows)
    model, sequences = tiny_model(shape), pairs()
    tree = PreparedTree(TokenTree.build(sequences))
    chunks = tree.chunks(unit_C, rows)
    assert {"none": chunks is None, "one": len(chunks or []) == 1, "several": len(chunks or []) > 1}[parts]

    plain = in_plain_float64(copy.deepcopy(model))
    wanted_C = completion_scores(plain, sequences)
    wanted = loss_of_scores(wanted_C, torch.ones(12, dtype=torch.bool))
    wanted.backward()
    fast = Scorer(in_float64(model))
    loss, (score_C,) = fast.loss(tree, lambda sum_WC, present_C: loss_of_scores(sum_WC[0], present_C), unit_C)
    loss.backward()
    assert_same([loss.detach(), score_C], [wanted.detach(), wanted_C.detach()])
    assert not score_C.requires_grad
    assert relative_difference(flat_gradient(model), flat_gradient(plain)) <= 1e-12


def test_log_probs_are_summed_by_each_weighting_in_the_same_pass(tiny_model: Callable[..., PreTrainedModel]) -> None:
    """The gradient of a loss of both sums is that of the two losses added."""
    tree, model = PreparedTree(TokenTree.build(pairs())), in_float64(tiny_model("llama"))
    first, second = tree.edge_weight_E, (torch.arange(len(tree.edge_weight_E)) % 3).float()
    scorer, slopes = Scorer(model), torch.linspace(-1, 2, 24, dtype=torch.float64).reshape(2, 12)
    loss, sum_WC = scorer.loss(tree, lambda sum_WC, _: (slopes * sum_WC).sum(), None, (first, second))
    loss.backward()
    got = flat_gradient(model)
    (log_prob,) = scorer(tree)
    wanted_WC = torch.stack([tree.sum_edges(log_prob, weight_E) for weight_E in (first, second)])
    (slopes * wanted_WC).sum().backward()
    assert_same([sum_WC], [wanted_WC.detach()])
    assert relative_difference(got, flat_gradient(model)) <= 1e-12


def test_chunks_never_part_a_unit_and_hold_every_row_once() -> None:
    tree, unit_C = PreparedTree(TokenTree.build(pairs(count=20))), np.arange(40) // 2
    for rows in (1, 8, 20, 60, 1000):
        chunks = tree.chunks(unit_C, rows)
        if chunks is None:
            continue
        assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(len(tree.row_N)))
        edge_row = tree.target_row_M[tree.edge_target_E]
        for unit in range(20):
            rows_of_unit = edge_row[torch.from_numpy(unit_C)[tree.edge_completion_E] == unit]
            assert sum(bool(((rows_of_unit >= c.start) & (rows_of_unit < c.stop)).any()) for c in chunks) == 1


def test_a_pair_keeps_its_loss_where_one_of_its_answers_has_no_scored_token(
    tiny_model: Callable[..., PreTrainedModel],
) -> None:
    """Its log-prob is then 0 (an empty sum), and the pair's loss that of the other answer."""
    unscored = TokenSequence(np.array([1, 2, 3], np.int32), 2, np.zeros(1, np.float32))
    scored = TokenSequence(np.array([1, 2, 4], np.int32), 2)
    tree = PreparedTree(TokenTree.build([unscored, scored]))
    scorer = Scorer(tiny_model("llama"))
    loss, (score_C,) = scorer.loss(tree, lambda sum_WC, present_C: pair_loss(sum_WC[0], present_C), np.array([0, 0]))
    assert score_C[0] == 0
    torch.testing.assert_close(loss.detach(), -logsigmoid(-0.3 * score_C[1]))


@pytest.mark.parametrize("unit_C", [np.array([0, 0]), None], ids=["pairs", "linear"])
def test_a_tree_without_scored_tokens_has_empty_rows_and_sums_of_zero(
    unit_C: Ints | None, tiny_model: Callable[..., PreTrainedModel]
) -> None:
    """A micro-batch may hold nothing but such completions."""
    ids, scorer = np.array([1, 2, 3], np.int32), Scorer(tiny_model("llama"))
    tree = PreparedTree(TokenTree.build([TokenSequence(ids, 2, np.zeros(1, np.float32))] * 2))
    (log_prob,) = scorer(tree)
    assert log_prob.shape == (0,)

    def loss_of_sums(sum_WC: Tensor, present_C: Tensor) -> Tensor:
        return sum_WC.sum() if unit_C is None else pair_loss(sum_WC[0], present_C)

    loss, (score_C,) = scorer.loss(tree, loss_of_sums, unit_C)
    assert score_C.tolist() == [0, 0]
    assert float(loss.detach()) == pytest.approx(0 if unit_C is None else math.log(2))
