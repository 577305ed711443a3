"""Claims about TRL, from its own loss code: where it has an objective, loss and gradient are kilter's.

TRL's methods run on a trainer that was never set up, given float64 log-probs from a model's plain forward (its own
fused head rounds to float32): what is compared are the losses, and their gradients in the model's parameters.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kilter.data.records import Origin
from kilter.model.scorer import Scorer
from kilter.objectives import OBJECTIVES, parse
from kilter.tokens.encoding import EncodedLabelled, EncodedPair
from kilter.tokens.sequence import TokenSequence
from kilter.train.batches import Batch, labelled_batch, pair_batch
from kilter.train.step import accumulate_gradient
from model.plain import flat_gradient, in_float64, in_plain_float64, relative_difference
from objectives.trl_differences import DIFFERENCES

pytest.importorskip("trl")
# Its imports warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore")

MakeModel = Callable[..., PreTrainedModel]
WHOLE = 10_000
MODULES = {
    "DPOTrainer": "trl.trainer.dpo_trainer",
    "KTOTrainer": "trl.trainer.kto_trainer",
    "CPOTrainer": "trl.experimental.cpo.cpo_trainer",
    "ORPOTrainer": "trl.experimental.orpo.orpo_trainer",
}


class Case(NamedTuple):
    """An objective of kilter's, and the settings of TRL's DPOTrainer that come closest.

    `short`: on answers of one or two tokens, by models that find all tokens about equally likely.
    """

    kilter: str
    trl: dict[str, Any]
    dtype: torch.dtype = torch.float64
    short: bool = False


# Each option is away from both sides' defaults.
SAME = [
    Case("dpo(beta=0.3)", {"loss_types": ["sigmoid"]}),
    Case("hinge(beta=0.3)", {"loss_types": ["hinge"]}),
    Case("ipo_mean(beta=0.3)", {"loss_types": ["ipo"]}),
    Case("exo(beta=0.3, label_smoothing=0.2)", {"loss_types": ["exo_pair"], "label_smoothing": 0.2}),
    Case("nca(beta=0.3)", {"loss_types": ["nca_pair"]}),
    Case("robust(beta=0.3, label_smoothing=0.2)", {"loss_types": ["robust"], "label_smoothing": 0.2}),
    Case("sppo(beta=0.3)", {"loss_types": ["sppo_hard"]}),
    Case("aot(beta=0.3, label_smoothing=0.2)", {"loss_types": ["aot"], "label_smoothing": 0.2}),
    Case("aot_unpaired(beta=0.3, label_smoothing=0.2)", {"loss_types": ["aot_unpaired"], "label_smoothing": 0.2}),
    Case("apo_zero(beta=0.3)", {"loss_types": ["apo_zero"]}),
    Case("apo_down(beta=0.3)", {"loss_types": ["apo_down"]}),
    Case("discopop(beta=0.3, tau=0.2)", {"loss_types": ["discopop"], "args": SimpleNamespace(discopop_tau=0.2)}),
    Case("sft", {"loss_types": ["sft"]}),
    Case("dpo_norm(beta=0.3)", {"loss_types": ["sigmoid_norm"]}),
    Case("fdpo_forward_kl(beta=0.3)", {"f_divergence_type": "forward_kl"}),
    Case("fdpo_js(beta=0.3)", {"f_divergence_type": "js_divergence"}),
    # TRL's has no float64; sums of few log-probs are rounded by little.
    Case(
        "fdpo_alpha(beta=0.3, alpha=0.2)",
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.2},
        torch.float32,
        short=True,
    ),
    Case("ld_dpo(beta=0.3, alpha=0.2)", {"ld_alpha": 0.2}),
    Case("wpo(beta=0.3)", {"use_weighting": True}),
    Case("dpo(beta=0.3) + 0.2*sft", {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2]}),
    Case(
        "0.8*dpo(beta=0.3) + 0.5*apo_zero(beta=0.3) + sft",
        {"loss_types": ["sigmoid", "apo_zero", "sft"], "loss_weights": [0.8, 0.5, 1.0]},
    ),
]
DIFFERENT = [
    Case("ipo(beta=0.3)", {"loss_types": ["ipo"]}),
    Case("dpo(beta=0.3, label_smoothing=0.2)", {"label_smoothing": 0.2}),
    Case("bco_pair(beta=0.3)", {"loss_types": ["bco_pair"]}),
    # Some of these answers are likelier than what the policy samples.
    Case("wpo_clamped(beta=0.3)", {"use_weighting": True}, short=True),
    Case("ld_dpo_policy(beta=0.3, alpha=0.2)", {"ld_alpha": 0.2}),
    Case("sppo_soft(beta=0.3)", {"loss_types": ["sppo_hard"]}),
]


class Scored(nn.Module):
    """A model as TRL's trainers call it: fused head and plain forward, in the type that is asked for."""

    is_gradient_checkpointing = False

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.plain, self.dtype = model, dtype

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, fused_lm_head: bool = False, **_: Any
    ) -> SimpleNamespace:
        logits = self.plain(input_ids=input_ids, use_cache=False).logits
        if not fused_lm_head:
            return SimpleNamespace(logits=logits)
        assert labels is not None
        log_p, targets = logits[:, :-1].log_softmax(-1).to(self.dtype), labels[:, 1:]
        scored = targets != -100
        outputs = {
            "log_probs": log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0],
            "log_sum_sq_probs": log_p.exp().square().sum(-1).log(),
            "entropy": -(log_p.exp() * log_p).sum(-1),
            "mean_logits": logits[:, :-1].mean(-1),
            "is_top1": log_p.argmax(-1) == targets,
        }
        return SimpleNamespace(aux_loss=None, **{key: value * scored for key, value in outputs.items()})


def trainer(name: str, policy: Scored, reference: Scored | None, **settings: Any) -> Any:
    """One of TRL's trainers with what its loss looks at, and nothing else of its making."""
    kind = getattr(importlib.import_module(MODULES[name]), name)
    made = kind.__new__(kind)
    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda x: x
    )
    always = {
        "model": policy,
        "ref_model": reference,
        "accelerator": alone,
        "aux_loss_enabled": False,
        "precompute_ref_logps": False,
        "args": SimpleNamespace(),
        "beta": 0.3,
        "label_smoothing": 0.0,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    for key, value in (always | settings).items():
        setattr(made, key, value)
    if not hasattr(made.args, "gradient_checkpointing_kwargs"):
        made.args.gradient_checkpointing_kwargs = None
    return made


def padded(sequences: Sequence[TokenSequence], prefix: str = "") -> dict[str, Tensor]:
    """Sequences as TRL's collators pad them, with what is answer marked."""
    longest = max(len(s.ids) for s in sequences)
    names = "input_ids", "attention_mask", "completion_mask"
    inputs = {prefix + name: torch.zeros(len(sequences), longest, dtype=torch.long) for name in names}
    for row, sequence in enumerate(sequences):
        size = len(sequence.ids)
        inputs[prefix + "input_ids"][row, :size] = torch.from_numpy(sequence.ids).long()
        inputs[prefix + "attention_mask"][row, :size] = 1
        inputs[prefix + "completion_mask"][row, sequence.first : size] = 1
    return inputs


def labels_of(inputs: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """The same as TRL's older trainers have it."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    return {
        f"{side}_input_ids": inputs["input_ids"],
        f"{side}_attention_mask": inputs["attention_mask"],
        f"{side}_labels": labels,
    }


def encoded_pairs(prompts: Sequence[int], answers: Sequence[tuple[int, int]]) -> list[EncodedPair]:
    """Pairs on prompts and of answers of these sizes, all of other tokens."""
    draw = np.random.default_rng(7)

    def tokens(size: int) -> list[int]:
        return draw.integers(1, 40, size).tolist()

    rows = []
    for place, (prompt_size, sizes) in enumerate(zip(prompts, answers, strict=True)):
        prompt = tokens(prompt_size)
        chosen, rejected = (
            TokenSequence(np.array(prompt + tokens(size), np.int32), prompt_size, None) for size in sizes
        )
        rows.append(EncodedPair(chosen, rejected, Origin("pairs", place), preference=0.9))
    return rows


ROWS = encoded_pairs((3, 5, 2, 4, 6), ((4, 7), (6, 3), (5, 5), (8, 2), (3, 6)))
SHORT = encoded_pairs((3, 5, 2, 4, 6, 3), ((1, 2), (1, 1), (2, 1), (1, 1), (2, 2), (1, 1)))


def models_of(tiny_model: MakeModel, spread: float) -> list[PreTrainedModel]:
    """A policy that has left its reference, so that no two log-ratios are alike."""
    policy, reference = (tiny_model("llama", spread=spread) for _ in range(2))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in policy.parameters():
            parameter.add_(spread / 6 * torch.randn_like(parameter))
    return [policy, reference]


@pytest.fixture
def models(tiny_model: MakeModel) -> list[PreTrainedModel]:
    return models_of(tiny_model, spread=0.3)


def by_kilter(models: Sequence[PreTrainedModel], batch: Batch, text: str) -> tuple[float, Tensor]:
    """Loss and gradient of an objective, by a training step on the tree."""
    policy, reference = (in_float64(copy.deepcopy(model)) for model in models)
    mixture = parse(text)
    frozen = Scorer(reference).frozen() if mixture.needs_reference else None
    loss = accumulate_gradient(Scorer(policy), frozen, batch, mixture).loss
    return loss, flat_gradient(policy)


def by_trl(
    models: Sequence[PreTrainedModel], loss_of: Callable[[Scored, Scored], Tensor], dtype: torch.dtype = torch.float64
) -> tuple[float, Tensor]:
    """Loss and gradient of what TRL makes of both models."""
    policy, reference = (Scored(in_plain_float64(copy.deepcopy(model)), dtype) for model in models)
    loss = loss_of(policy, reference)
    loss.backward()
    return float(loss.detach()), flat_gradient(policy.plain)


def dpo_trainer_loss(case: Case, rows: Sequence[EncodedPair]) -> Callable[[Scored, Scored], Tensor]:
    settings = {
        "loss_types": ["sigmoid"],
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
    } | case.trl
    settings.setdefault("loss_weights", [1.0] * len(settings["loss_types"]))
    inputs = padded([pair.chosen for pair in rows] + [pair.rejected for pair in rows])

    def loss_of(policy: Scored, reference: Scored) -> Tensor:
        loss: Tensor = trainer("DPOTrainer", policy, reference, **settings)._compute_loss(policy, inputs, False)
        return loss

    return loss_of


def skip_what_is_missing(text: str) -> None:
    missing = [name for name in re.findall(r"(?<!\w)[a-z]\w*(?![\w=])", text) if name not in OBJECTIVES]
    if missing:
        pytest.skip(f"there is no objective {missing[0]!r}")


def same(got: tuple[float, Tensor], wanted: tuple[float, Tensor]) -> bool:
    return got[0] == pytest.approx(wanted[0], rel=1e-6) and relative_difference(got[1], wanted[1]) <= 1e-6


def by_both(case: Case, tiny_model: MakeModel) -> tuple[tuple[float, Tensor], tuple[float, Tensor]]:
    """Loss and gradient by kilter, and by TRL's DPOTrainer."""
    skip_what_is_missing(case.kilter)
    models, rows = models_of(tiny_model, spread=0.1 if case.short else 0.3), SHORT if case.short else ROWS
    by_trainer = by_trl(models, dpo_trainer_loss(case, rows), case.dtype)
    return by_kilter(models, pair_batch(rows, node_budget=WHOLE), case.kilter), by_trainer


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.kilter)
def test_loss_and_gradient_are_those_of_trls_dpo_trainer(case: Case, tiny_model: MakeModel) -> None:
    assert same(*by_both(case, tiny_model))


@pytest.mark.parametrize("case", DIFFERENT, ids=lambda case: case.kilter)
def test_where_kilter_says_that_it_differs_it_does(case: Case, tiny_model: MakeModel) -> None:
    (loss, gradient), (trl_loss, trl_gradient) = by_both(case, tiny_model)
    assert loss != pytest.approx(trl_loss, rel=1e-3)
    assert relative_difference(gradient, trl_gradient) > 1e-3
    name = case.kilter.partition("(")[0]
    assert any(difference.kilter.partition("(")[0] == name for difference in DIFFERENCES)


def test_every_loss_of_trls_dpo_trainer_is_held_here() -> None:
    """Names in its source, so that a release with more of them is noticed."""
    source = inspect.getsource(importlib.import_module(MODULES["DPOTrainer"]).DPOTrainer._compute_loss)
    there_are = set(re.findall(r'_type == "(\w+)"', source))
    held = {"sigmoid", "reverse_kl"}
    for case in (*SAME, *DIFFERENT):
        held |= set(case.trl.get("loss_types", [])) | {case.trl.get("f_divergence_type", "sigmoid")}
    assert there_are == held


def test_loss_and_gradient_are_those_of_trls_kto_trainer(models: list[PreTrainedModel]) -> None:
    """On the same mismatched answers, of the row after on another prompt."""
    answers = [pair.chosen if place % 2 else pair.rejected for place, pair in enumerate(ROWS)]
    rows = [EncodedLabelled(answer, place % 2 == 1, Origin("rows", place)) for place, answer in enumerate(answers)]
    mismatched = [
        TokenSequence(np.concatenate([here.ids[: here.first], after.ids[after.first :]]), here.first, None)
        for here, after in zip(answers, answers[1:] + answers[:1], strict=True)
    ]
    inputs = padded(answers) | padded(mismatched, "KL_") | {"label": torch.tensor([row.good for row in rows])}
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.4}

    def loss_of(policy: Scored, reference: Scored) -> Tensor:
        kto = trainer("KTOTrainer", policy, reference, calculate_KL=True, loss_type="kto", **weights)
        loss: Tensor = kto._compute_loss(policy, inputs, False)
        return loss

    text = "kto(beta=0.3, desirable_weight=1.5, undesirable_weight=0.4)"
    got = by_kilter(models, labelled_batch(rows, node_budget=WHOLE, mismatched=True), text)
    assert same(got, by_trl(models, loss_of))


def older_trainer_loss(name: str, rows: Sequence[EncodedPair], **settings: Any) -> Callable[[Scored, Scored], Tensor]:
    """The loss of one of TRL's trainers without a reference."""
    batch = labels_of(padded([row.chosen for row in rows]), "chosen") | labels_of(
        padded([row.rejected for row in rows]), "rejected"
    )

    def loss_of(policy: Scored, _: Scored) -> Tensor:
        made = trainer(name, policy, None, is_encoder_decoder=False, pad_token_id=0, padding_value=0, **settings)
        loss: Tensor = made.get_batch_loss_metrics(policy, batch)[0]
        return loss

    return loss_of


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("simpo(beta=0.3, gamma=0.2)", {"loss_type": "simpo", "simpo_gamma": 0.2, "cpo_alpha": 0.0}),
        ("cpo(beta=0.3, nll_weight=0) + 0.7*sft", {"loss_type": "sigmoid", "cpo_alpha": 0.7}),
    ],
)
def test_loss_and_gradient_are_those_of_trls_cpo_trainer(
    text: str, settings: dict[str, Any], models: list[PreTrainedModel]
) -> None:
    skip_what_is_missing(text)
    got = by_kilter(models, pair_batch(ROWS, node_budget=WHOLE), text)
    assert same(got, by_trl(models, older_trainer_loss("CPOTrainer", ROWS, alpha=0.0, **settings)))


def test_loss_and_gradient_are_those_of_trls_orpo_trainer_where_there_is_no_prompt_to_learn(
    models: list[PreTrainedModel],
) -> None:
    """It rounds log-probs to float32 itself."""
    skip_what_is_missing("orpo")
    rows = encoded_pairs((1,), ((5, 7),))
    got = by_kilter(models, pair_batch(rows, node_budget=WHOLE), "orpo(odds_weight=0.3)")
    assert same(got, by_trl(models, older_trainer_loss("ORPOTrainer", rows)))
