"""A critic: a small network that estimates log p/q from samples of p and of q, in nats.

It is trained as a discriminator, by cross-entropy with both sides weighing alike: log p/q does best of all functions,
and its loss is log 2 - JS(p, q) (Goodfellow et al. 2014, arXiv 1406.2661). That is the bound on JS of
kilter.divergence.estimates.variational. Its terms grow no faster than the critic, so training is steady where raising a
bound on KL, which holds exponentials of it, is not (Song and Ermon 2020, arXiv 1910.06222). Needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kilter.divergence.estimates.points import point_pair, points
from kilter.divergence.estimates.standard_errors import Array, Estimate, Floats, floats
from kilter.divergence.estimates.variational import DONSKER_VARADHAN, bound_from_critic, bound_value
from kilter.divergence.exact.f_divergences import FDivergence
from kilter.errors import DistributionError

if TYPE_CHECKING:
    import torch

LEAST = 10  # samples to train on
LOOK_EVERY = 20  # steps


def train_critic(
    x_ND: Array,
    y_MD: Array,
    *,
    hidden: int = 64,
    steps: int = 600,
    learning_rate: float = 3e-3,
    batch_size: int = 512,
    seed: int = 0,
) -> Callable[[Array], Floats]:
    """A function from samples [N, D] to log p/q [N], from samples x of p and y of q; one-dimensional ones may be [N].

    A fifth of the samples is kept apart to tell when the critic was best. The same seed gives the same critic; the
    global random state is left alone. Raises DistributionError where x and y have different dimensions, or are too
    few.

    >>> rng = np.random.default_rng(0)
    >>> critic = train_critic(rng.normal(0, 1, 1000), rng.normal(1, 1, 1000), steps=200)
    >>> bool(critic(np.array([-1.0]))[0] > 1 > -1 > critic(np.array([2.0]))[0])  # log p/q = 1/2 - x: 1.5 and -1.5
    True
    """
    import torch

    x_ND, y_MD = point_pair(x_ND, y_MD, least=LEAST)
    both = np.concatenate([x_ND, y_MD])
    centre_D, scale_D = both.mean(axis=0), both.std(axis=0)
    scale_D = np.where(scale_D > 0, scale_D, 1.0)

    def prepared(values_ND: Floats) -> torch.Tensor:
        return torch.from_numpy((values_ND - centre_D) / scale_D).float()

    network = _network(x_ND.shape[1], hidden, seed)
    draw = torch.Generator().manual_seed(seed)
    (x, kept_x), (y, kept_y) = (_parted(prepared(values), draw) for values in (x_ND, y_MD))
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    best, best_state = math.inf, network.state_dict()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        loss = _loss(network, _batch(x, batch_size, draw), _batch(y, batch_size, draw))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % LOOK_EVERY == LOOK_EVERY - 1 or step == steps - 1:
            with torch.no_grad():
                reached = float(_loss(network, kept_x, kept_y))
            if reached < best:
                best, best_state = reached, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best_state)

    def critic(values_ND: Array) -> Floats:
        values_ND = points(values_ND, "the critic's input", least=1)
        if values_ND.shape[1] != len(centre_D):
            raise DistributionError(
                f"the critic's input has shape {values_ND.shape}; it was trained in {len(centre_D)} dimensions: give "
                "samples by those dimensions"
            )
        with torch.no_grad():
            return floats(network(prepared(values_ND)))

    return critic


def variational_bound(
    x_ND: Array,
    y_MD: Array,
    *,
    bound: str | FDivergence = DONSKER_VARADHAN,
    hidden: int = 64,
    steps: int = 600,
    seed: int = 0,
) -> Estimate:
    """A lower bound on a divergence from samples x of p and y of q: a critic learns from one half of them
    (`train_critic`), and the bound is taken on the other, so that nothing is gained by what was learned by heart.

    Bounds on KL fail where it is above half of log M or so, whatever the critic: see `bound_from_critic`, also for the
    names of bounds. The number of samples is that of the halves that the bound was taken on.

    >>> rng = np.random.default_rng(0)
    >>> found = variational_bound(rng.normal(0, 1, 2000), rng.normal(2, 1, 2000), bound="js", steps=200)
    >>> bool(abs(found.value - 0.3368) < 2 * found.standard_error)  # JS(N(0, 1), N(2, 1)) by quadrature
    True
    """
    bound_value(np.zeros(1), np.zeros(1), bound=bound)  # an unknown name is refused before training
    shuffle = np.random.default_rng(seed)
    x_ND, y_MD = (shuffle.permutation(values) for values in point_pair(x_ND, y_MD, least=2 * LEAST))
    half_x, half_y = len(x_ND) // 2, len(y_MD) // 2
    critic = train_critic(x_ND[:half_x], y_MD[:half_y], hidden=hidden, steps=steps, seed=seed)
    return bound_from_critic(critic(x_ND[half_x:]), critic(y_MD[half_y:]), bound=bound)


def _network(dimension: int, hidden: int, seed: int) -> torch.nn.Module:
    from torch import nn, random

    with random.fork_rng(devices=[]):
        random.manual_seed(seed)
        inner = [nn.Linear(dimension, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
        return nn.Sequential(*inner, nn.Linear(hidden, 1), nn.Flatten(0))


def _parted(values: torch.Tensor, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What is trained on, and a fifth that is not."""
    import torch

    values = values[torch.randperm(len(values), generator=draw)]
    kept = max(1, len(values) // 5)
    return values[kept:], values[:kept]


def _batch(values: torch.Tensor, size: int, draw: torch.Generator) -> torch.Tensor:
    import torch

    return values[torch.randint(len(values), (min(size, len(values)),), generator=draw)]


def _loss(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of telling x from y, in nats; log 2 - JS at best."""
    from torch.nn.functional import softplus

    return (softplus(-network(x)).mean() + softplus(network(y)).mean()) / 2
