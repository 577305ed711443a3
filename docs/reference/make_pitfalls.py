"""Writes divergence-pitfalls.md beside this file. What each call returns is computed while the page is written."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kilter.errors import DistributionError

PAGE = Path(__file__).with_name("divergence-pitfalls.md")

TOP = """\
# Where divergences go wrong

<!-- Written by docs/reference/make_pitfalls.py, which computes what each call returns. -->

Inputs for which the usual functions of PyTorch and SciPy, or the formula as it stands in books, return something other
than what was meant, mostly without a word; and what kilter returns. Each call is evaluated when this page is written,
with these names:

```python
{setup}```
"""

SETUP = """\
import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import entropy as scipy_entropy
from torch.distributions import Categorical
from torch.nn import functional as F

from kilter.divergence import *

inf = float("inf")
p, q = torch.tensor([0.2, 0.8]).double(), torch.tensor([0.5, 0.5]).double()
rows = [[0.2, 0.8], [0.5, 0.5]]
masked = torch.tensor([1.0, 0.0, -inf]).double()  # logits; the last token is ruled out
half = torch.tensor([0.5, 0.5, 0.0]).double()
near = np.array([0.2, 0.3, 0.5])
nearer = near + 1e-9 * np.array([1, 1, -2])
labels, one_hot, weights = torch.tensor([0, 1]), torch.eye(2), torch.tensor([1.0, 9.0])
even = torch.zeros(2, 2)  # logits of two rows, each of which loses log 2 = 0.69315 whatever its label


def gradient(function, at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]
"""


class Pitfall(NamedTuple):
    """What is asked, a call that goes wrong, why, kilter's, and what is right, by arithmetic; None: to be refused."""

    asked: str
    theirs: str
    why: str
    ours: str
    right: float | list[float] | None


E = math.e
KL_P_Q = 0.2 * math.log(0.4) + 0.8 * math.log(1.6)
# Logits (1, 0): the larger outcome's probability.
S = E / (1 + E)
H_S = math.log(1 + E) - S

SECTIONS: dict[str, list[Pitfall]] = {
    "Order, names and means": [
        Pitfall(
            "KL(p, q)",
            'F.kl_div(p.log(), q.log(), log_target=True, reduction="sum")',
            "its order is (q, p): this is KL(q, p)",
            "kl(Probs(p), Probs(q))",
            KL_P_Q,
        ),
        Pitfall(
            "KL(p, q), by default",
            "F.kl_div(q.log(), p)",
            "a mean over rows and over outcomes",
            "kl(Probs(p), Probs(q))",
            KL_P_Q,
        ),
        Pitfall(
            "mean over 2 sequences of 3 tokens, each log 4",
            'F.kl_div(torch.zeros(2, 3, 4).log_softmax(-1), torch.eye(4)[0].expand(2, 3, 4), reduction="batchmean")',
            "divides by the 2 sequences, not by the 6 rows",
            'kl(Probs(torch.eye(4)[0].expand(2, 3, 4)), Logits(torch.zeros(2, 3, 4)), reduction="mean")',
            math.log(4),
        ),
        Pitfall(
            "JS of distributions that exclude each other: log 2",
            "jensenshannon([1, 0], [0, 1])",
            "its square root, a distance",
            "js(Probs([1, 0]), Probs([0, 1]))",
            math.log(2),
        ),
        Pitfall(
            "entropy of each row",
            "scipy_entropy(rows)",
            "goes down the columns, and normalises them",
            "entropy(Probs(rows))",
            [-0.2 * math.log(0.2) - 0.8 * math.log(0.8), math.log(2)],
        ),
    ],
    "What the numbers are": [
        Pitfall(
            "KL(p, q), the logarithm forgotten",
            'F.kl_div(q, p, reduction="sum")',
            "takes probabilities for log-probs",
            "kl(p, q)",
            None,
        ),
        Pitfall(
            "KL(p, q), `log_target` forgotten",
            'F.kl_div(q.log(), p.log(), reduction="sum")',
            "takes log-probs for probabilities",
            "kl(LogProbs(p.log()), LogProbs(q.log()))",
            KL_P_Q,
        ),
        Pitfall(
            "KL(p, q), q as logits",
            'F.kl_div(torch.tensor([3.0, 3.0]), p, reduction="sum")',
            "takes logits for log-probs",
            "kl(Probs(p), Logits(torch.tensor([3.0, 3.0]).double()))",
            KL_P_Q,
        ),
        Pitfall(
            "entropy of p, from log-probs",
            "scipy_entropy(np.log([0.2, 0.8]))",
            "normalises log-probs by their sum",
            "entropy(LogProbs(np.log([0.2, 0.8])))",
            -0.2 * math.log(0.2) - 0.8 * math.log(0.8),
        ),
        Pitfall(
            "-log of the label's probability, 0.9",
            "F.cross_entropy(torch.tensor([0.1, 0.9]), torch.tensor(1))",
            "takes probabilities for logits, and softmaxes twice",
            "cross_entropy(Probs([0, 1]), Probs([0.1, 0.9]))",
            -math.log(0.9),
        ),
    ],
    "No distributions": [
        Pitfall(
            "probabilities that sum to 0.4",
            "rel_entr([0.2, 0.2], [0.5, 0.5]).sum()",
            "a negative divergence",
            "kl(Probs([0.2, 0.2]), Probs([0.5, 0.5]))",
            None,
        ),
        Pitfall(
            "probabilities that sum to 1.1",
            "scipy_entropy([0.2, 0.9])",
            "normalises silently",
            "entropy(Probs([0.2, 0.9]))",
            None,
        ),
        Pitfall(
            "a batch of which one row is off",
            "Categorical(torch.tensor([[0.5, 0.5], [2.0, 3.0]])).entropy()",
            "normalises silently",
            "entropy(Probs([[0.5, 0.5], [2.0, 3.0]]))",
            None,
        ),
        Pitfall(
            "a negative probability",
            "scipy_entropy([1.5, -0.5])",
            "says -inf",
            "entropy(Probs([1.5, -0.5]))",
            None,
        ),
    ],
    "Zeros, and tokens that are ruled out": [
        Pitfall(
            "KL of what is identical",
            'F.kl_div(masked.log_softmax(-1), masked.log_softmax(-1), log_target=True, reduction="sum")',
            "-inf - -inf",
            "kl(Logits(masked), Logits(masked))",
            0.0,
        ),
        Pitfall(
            "KL of (1/2, 1/2, 0), by log-probs",
            'F.kl_div(masked.log_softmax(-1), half.log(), log_target=True, reduction="sum")',
            "0 x -inf",
            "kl(Probs(half), Logits(masked))",
            -math.log(2) - 0.5 * math.log(S * (1 - S)),
        ),
        Pitfall(
            "KL's gradient by the logits of p",
            'gradient(lambda z: F.kl_div(half.log(), z.log_softmax(-1), log_target=True, reduction="sum"), masked)',
            "and NaN is every weight after the step",
            "gradient(lambda z: kl(Logits(z), Probs(half)), masked)",
            [S * (1 - S), -S * (1 - S), 0.0],  # p (1 - p) (log-odds of p, 1, less those of q, 0)
        ),
        Pitfall(
            "gradient of entropy by the logits",
            "gradient(lambda z: -(z.softmax(-1) * z.log_softmax(-1)).sum(), masked)",
            "the formula as it stands",
            "gradient(lambda z: entropy(Logits(z)), masked)",
            [-S * (math.log(S) + H_S), -(1 - S) * (math.log(1 - S) + H_S), 0.0],
        ),
        Pitfall(
            "entropy of what is certain",
            "Categorical(torch.tensor([1.0, 0.0])).entropy()",
            "moves probabilities away from 0 and 1",
            "entropy(Probs([1.0, 0.0]))",
            0.0,
        ),
        Pitfall(
            "cross-entropy of what was ruled out and happened",
            "F.binary_cross_entropy(torch.tensor(0.0), torch.tensor(1.0))",
            "clamps at 100",
            "binary_cross_entropy(labels=1, probs=0.0)",
            math.inf,
        ),
    ],
    "Rounding": [
        Pitfall(
            "log-softmax of (1000, 0)",
            "np.log(np.exp([1000.0, 0.0]) / np.exp([1000.0, 0.0]).sum())",
            "exp overflows",
            "log_softmax(np.array([1000.0, 0.0]))",
            [0.0, -1000.0],
        ),
        Pitfall(
            "log-softmax of (200, 0)",
            "torch.tensor([200.0, 0.0]).softmax(-1).log()",
            "softmax is rounded to 0",
            "log_softmax(torch.tensor([200.0, 0.0]))",
            [0.0, -200.0],
        ),
        Pitfall(
            "KL between neighbours, 1e-9 apart",
            "rel_entr(near, nearer).sum()",
            "the terms cancel; the rest is rounding, here negative",
            "kl(Probs(near), Probs(nearer))",
            1e-18 * (1 / 0.2 + 1 / 0.3 + 4 / 0.5) / 2,
        ),
        Pitfall(
            "KL between two confident models",
            "F.kl_div(torch.tensor([40.0, 0]).log_softmax(-1), torch.tensor([50.0, 0]).log_softmax(-1), "
            'log_target=True, reduction="sum")',
            "negative: log-probs near 0 are rounded to 0",
            "kl(Logits(torch.tensor([50.0, 0])), Logits(torch.tensor([40.0, 0])))",
            math.exp(-40) - math.exp(-50) * 11,
        ),
        Pitfall(
            "loss of a right and confident prediction",
            "F.cross_entropy(torch.tensor([50.0, 0]), torch.tensor(0))",
            "rounded to 0",
            "cross_entropy_loss(logits=torch.tensor([50.0, 0]), labels=torch.tensor(0))",
            math.exp(-50),
        ),
        Pitfall(
            "KL of bfloat16 logits",
            "F.kl_div(torch.tensor([1.0, 0.5]).bfloat16().log_softmax(-1), "
            'torch.tensor([1.0, 0.25]).bfloat16().log_softmax(-1), log_target=True, reduction="sum")',
            "computed in bfloat16",
            "kl(Logits(torch.tensor([1.0, 0.25]).bfloat16()), Logits(torch.tensor([1.0, 0.5]).bfloat16()))",
            math.log1p(math.exp(-0.5)) - math.log1p(math.exp(-0.75)) - 0.25 * math.exp(-0.75) / (1 + math.exp(-0.75)),
        ),
    ],
    "Losses": [
        Pitfall(
            "mean of two rows that lose log 2 each, with class weights and smoothing",
            "F.cross_entropy(even, torch.tensor([0, 0]), weights, label_smoothing=0.5)",
            "divides by the weights of labels that were not smoothed",
            "cross_entropy_loss(logits=even, labels=torch.tensor([0, 0]), class_weights=weights, label_smoothing=0.5)",
            math.log(2),
        ),
        Pitfall(
            "the same with one-hot targets, unsmoothed",
            "F.cross_entropy(even, one_hot[labels], weights)",
            "divides by the number of rows; with labels it divides by their weights",
            "cross_entropy_loss(logits=even, labels=Probs(one_hot[labels]), class_weights=weights)",
            math.log(2),
        ),
        Pitfall(
            "mean over no rows",
            "F.cross_entropy(even, torch.tensor([-100, -100]))",
            "0 / 0",
            "cross_entropy_loss(logits=even, labels=torch.tensor([-100, -100]))",
            None,
        ),
        Pitfall(
            "-log density at the mean, variance 1e-8",
            "F.gaussian_nll_loss(torch.zeros(1), torch.zeros(1), torch.tensor([1e-8]), full=True)",
            "takes 1e-6 for smaller variances",
            "gaussian_nll(values=0.0, mean=0.0, variance=1e-8)",
            math.log(2e-8 * math.pi) / 2,
        ),
        Pitfall(
            "squared error of a column and a row",
            "F.mse_loss(torch.zeros(3, 1), torch.tensor([0.0, 1.0, 2.0]))",
            "pairs each with each",
            "mean_squared_error(values=torch.zeros(3, 1), mean=torch.tensor([0.0, 1.0, 2.0]))",
            None,
        ),
    ],
}

HEADS = "| asked for | call | returns | because | kilter | returns |\n| --- | --- | --- | --- | --- | --- |\n"


def names() -> dict[str, Any]:
    """The names that calls use."""
    found: dict[str, Any] = {}
    exec(SETUP, found)
    return found


def returned(call: str, known: dict[str, Any]) -> tuple[Any, bool]:
    """What a call returns, as numbers of NumPy or as the message of an error, and whether it warned."""
    with warnings.catch_warnings(record=True) as warned, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            value = eval(call, known)
        except DistributionError as error:
            return str(error), False
    return np.asarray(value.tolist() if hasattr(value, "tolist") else value), bool(warned)


def page() -> str:
    """The whole page."""
    known = names()
    parts = [TOP.format(setup=SETUP)]
    for heading, pitfalls in SECTIONS.items():
        parts.append(f"\n## {heading}\n\n{HEADS}" + "".join(_line(pitfall, known) for pitfall in pitfalls))
    return "".join(parts)


def _line(pitfall: Pitfall, known: dict[str, Any]) -> str:
    theirs, ours = (_cell(*returned(call, known)) for call in (pitfall.theirs, pitfall.ours))
    cells = (pitfall.asked, f"`{pitfall.theirs}`", theirs, pitfall.why, f"`{pitfall.ours}`", ours)
    return f"| {' | '.join(cells)} |\n"


def _cell(value: Any, warned: bool) -> str:
    if isinstance(value, str):
        return f"an error: {value}"
    numbers = ", ".join(f"{number + 0.0:.5g}" for number in np.ravel(value).tolist())
    return (f"({numbers})" if value.ndim else numbers) + " and a warning" * warned


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
