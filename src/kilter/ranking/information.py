"""Information matrices and solving with them; that of comparisons is a Laplacian of the items, bordered by the extras.

Axes: I items, G rows of (left, right), E extras (order effect, covariates, tie parameter), p = I + E parameters,
B right-hand sides, L components (leagues whose strengths are centred by themselves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

from kilter.errors import NonFiniteError
from kilter.ranking.comparisons import Floats, Integers

# To this many parameters, matrices are dense: a factor of 1,500 takes 50 ms.
DENSE = 1500
# Beyond it a banded Cholesky factor serves, if it takes no more operations than this; else conjugate gradients.
BANDED_OPERATIONS = 2e10

Solve = Callable[[Floats], Floats]


class Information(Protocol):
    """Minus the second derivatives of a log-likelihood, by I log-strengths and then the extras."""

    @property
    def items(self) -> int: ...

    @property
    def precision(self) -> float:
        """What a Gaussian prior adds to the items' diagonal."""

    @property
    def diagonal(self) -> Floats:
        """p: the diagonal, or what bounds it from above."""

    def dense(self) -> Floats:
        """pp."""

    def __matmul__(self, vectors: Floats, /) -> Floats:
        """The product with pB vectors."""


@dataclass(frozen=True, eq=False)
class Bordered:
    """Sum over rows of weight x (e_left - e_right)(e_left - e_right)', with the extras' rows and columns about it.

    `border` is IE, `corner` EE. `precision` is added to the items' diagonal: a Gaussian prior's.
    """

    items: int
    left: Integers
    right: Integers
    weight: Floats
    border: Floats
    corner: Floats
    precision: float = 0.0

    @classmethod
    def of_pairs(
        cls,
        items: int,
        left: Integers,
        right: Integers,
        shifts: Floats,
        weight: Floats,
        tie: tuple[Floats, Floats] | None,
    ) -> Bordered:
        """From each row's second derivatives: by the advantage, and with ties (by advantage and tie, by tie)."""
        weighted = shifts * weight[:, None]
        corner = shifts.T @ weighted
        if tie is not None:
            cross = tie[0] @ shifts
            corner = np.block([[corner, cross[:, None]], [cross[None, :], np.array([[tie[1].sum()]])]])
            weighted = np.column_stack([weighted, tie[0]])
        border = np.empty((items, weighted.shape[1]))
        for extra, column in enumerate(weighted.T):
            border[:, extra] = np.bincount(left, column, items) - np.bincount(right, column, items)
        return cls(items, left, right, weight, border, corner)

    @cached_property
    def degree(self) -> Floats:
        """I: the Laplacian's diagonal, without the prior."""
        both = np.concatenate([self.left, self.right])
        return np.bincount(both, np.concatenate([self.weight, self.weight]), self.items).astype(np.float64, copy=False)

    @property
    def diagonal(self) -> Floats:
        """p."""
        return np.concatenate([self.degree + self.precision, np.diag(self.corner)])

    @cached_property
    def adjacency(self) -> sparse.csr_array:
        """II: the weight between two items, symmetric."""
        rows, columns = np.concatenate([self.left, self.right]), np.concatenate([self.right, self.left])
        both = np.concatenate([self.weight, self.weight])
        return sparse.coo_array((both, (rows, columns)), shape=(self.items, self.items)).tocsr()

    def __matmul__(self, vectors: Floats) -> Floats:
        """The product with pB vectors."""
        of_items, of_extras = vectors[: self.items], vectors[self.items :]
        top = (self.degree + self.precision)[:, None] * of_items - self.adjacency @ of_items
        return np.concatenate([top + self.border @ of_extras, self.border.T @ of_items + self.corner @ of_extras])

    def dense(self) -> Floats:
        """pp."""
        of_pairs = np.bincount(
            self.left.astype(np.int64) * self.items + self.right, self.weight, self.items**2
        ).reshape(self.items, self.items)
        whole = np.empty((len(self.diagonal), len(self.diagonal)))
        whole[: self.items, : self.items] = -(of_pairs + of_pairs.T)
        whole[: self.items, self.items :] = self.border
        whole[self.items :, : self.items] = self.border.T
        whole[self.items :, self.items :] = self.corner
        np.fill_diagonal(whole, self.diagonal)
        return whole


def centred(vectors: Floats, component: Integers) -> Floats:
    """Vectors, pB, whose items have mean zero in every component."""
    of_items = vectors[: len(component)]
    if not component.any():
        means = of_items.mean(axis=0, keepdims=True)
    else:
        members = sparse.csr_array(
            (np.ones(len(component)), (component, np.arange(len(component)))),
            shape=(int(component.max()) + 1, len(component)),
        )
        means = ((members @ of_items) / np.bincount(component)[:, None])[component]
    return np.concatenate([of_items - means, vectors[len(component) :]])


def solver(information: Information, component: Integers, plan: Integers | None, *, tolerance: float) -> Solve:
    """What solves with the information: pB to pB, with mean-zero items in every component where there is no prior.

    `plan` is what `plan_of` made of the pairs; `tolerance` is for conjugate gradients, the rest are exact.
    Raises NonFiniteError where the matrix is singular beyond the means.
    """
    if len(information.diagonal) <= DENSE:
        solve = dense_solver(information, component)
    elif plan is not None and isinstance(information, Bordered):
        solve = Banded(information, component, plan)
    else:
        solve = partial(conjugate_gradients, information, component, tolerance=tolerance)
    if information.precision:
        return solve
    return lambda vectors: centred(solve(centred(vectors, component)), component)


def dense_factor(information: Information, component: Integers) -> tuple[Floats, bool]:
    """The Cholesky factor of the dense matrix, with the components' means held where there is no prior."""
    whole = information.dense()
    if not information.precision:
        # (H + c 11')^-1 = H^+ + 11' / (c n^2), where 1 spans the null space of H.
        scale = float(information.diagonal[: information.items].mean()) / information.items
        whole[: information.items, : information.items] += scale * (component[:, None] == component[None, :])
    try:
        factor: tuple[Floats, bool] = linalg.cho_factor(whole, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        raise singular() from None
    return factor


def dense_solver(information: Information, component: Integers) -> Solve:
    """Solve by the dense Cholesky factor."""
    factor = dense_factor(information, component)

    def solve(vectors: Floats) -> Floats:
        solution: Floats = linalg.cho_solve(factor, vectors, check_finite=False)
        return solution

    return solve


def singular() -> NonFiniteError:
    """What to say of a matrix of information that has no inverse."""
    return NonFiniteError(
        "the comparisons do not determine every parameter: the information matrix is singular; a covariate or the "
        "order effect may be a combination of the others or of who is compared, or an estimate may lie at infinity"
    )


def plan_of(items: int, left: Integers, right: Integers, extras: int = 0) -> Integers | None:
    """The order of items in which a banded Cholesky factor is cheap, as on a ladder; None where it is not.

    None also for so few parameters that matrices are dense.
    """
    if items + extras <= DENSE:
        return None
    graph = sparse.coo_array((np.ones(len(left), np.int8), (left, right)), shape=(items, items)).tocsr()
    order = reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True).astype(np.int32)
    place = np.empty_like(order)
    place[order] = np.arange(items, dtype=np.int32)
    width = int(np.abs(place[left] - place[right]).max())
    return place if items * float(width) ** 2 <= BANDED_OPERATIONS else None


class Banded:
    """A banded Cholesky factor of the items in a good order, and the Schur complement of the extras.

    Without a prior one item of each component is held: a weight to ground, which takes no current when sources add up
    to none. So solutions are right but for a constant in each component.
    """

    def __init__(self, information: Bordered, component: Integers, place: Integers) -> None:
        left, right, self.items = place[information.left], place[information.right], information.items
        self.place, self.border = place, information.border
        offset = np.abs(left - right)
        width = int(offset.max())
        band = -np.bincount(
            offset.astype(np.int64) * self.items + np.minimum(left, right), information.weight, (width + 1) * self.items
        ).reshape(width + 1, self.items)
        band[0, place] = information.degree + information.precision
        if not information.precision:
            held = np.unique(component, return_index=True)[1]
            band[0, place[held]] += np.maximum(information.degree[held], 1)
        try:
            self.factor = linalg.cholesky_banded(band, overwrite_ab=True, lower=True, check_finite=False)
        except linalg.LinAlgError:
            raise singular() from None
        self.through = self._of_items(information.border)
        self.schur = information.corner - information.border.T @ self.through

    def _of_items(self, vectors: Floats) -> Floats:
        ordered = np.empty_like(vectors)
        ordered[self.place] = vectors
        solved: Floats = linalg.cho_solve_banded((self.factor, True), ordered, check_finite=False)
        return solved[self.place]

    def __call__(self, vectors: Floats) -> Floats:
        """Solve for pB vectors."""
        inner, extras = self._of_items(vectors[: self.items]), vectors[self.items :]
        if len(self.schur):
            try:
                extras = np.linalg.solve(self.schur, extras - self.border.T @ inner).astype(np.float64, copy=False)
            except np.linalg.LinAlgError:
                raise singular() from None
        return np.concatenate([inner - self.through @ extras, extras])

    def inverse_diagonal(self) -> Floats:
        """I: the items' diagonal of the inverse, by Takahashi's recurrence within the band."""
        width, last = len(self.factor) - 1, self.items - 1
        diagonal = np.empty(self.items)
        window = np.zeros((width, width))  # of the inverse, for the `width` items after this one
        for item in range(last, -1, -1):
            pivot = self.factor[0, item]
            below = np.zeros(width)
            below[: min(width, last - item)] = self.factor[1 : 1 + min(width, last - item), item] / pivot
            towards = -window @ below
            diagonal[item] = 1 / pivot**2 - below @ towards
            window[1:, 1:] = window[:-1, :-1].copy()
            window[0, 0] = diagonal[item]
            window[0, 1:] = window[1:, 0] = towards[:-1]
        diagonal = diagonal[self.place]
        if len(self.schur):
            diagonal += np.sum(self.through * np.linalg.solve(self.schur, self.through.T).T, axis=1)
        return diagonal


def conjugate_gradients(
    information: Information, component: Integers, vectors: Floats, *, tolerance: float, most_steps: int = 5000
) -> Floats:
    """Solve by conjugate gradients with the diagonal as preconditioner, every column of pB for itself.

    Ends when every residual is `tolerance` of its right-hand side; raises NonFiniteError where `most_steps` do not
    bring it there.
    """
    # Without a prior, rounding must not lead out of what the matrix maps onto: mean zero in every component.
    kept = (lambda vectors: vectors) if information.precision else partial(centred, component=component)
    inverse = 1 / np.where(information.diagonal > 0, information.diagonal, 1)[:, None]
    solution = np.zeros_like(vectors)
    residual = vectors.copy()
    ahead = kept(inverse * residual)
    direction = ahead.copy()
    length = np.sum(residual * ahead, axis=0)
    target = tolerance**2 * length
    for _ in range(most_steps):
        if np.all(length <= target):
            return solution
        product = information @ direction
        curvature = np.sum(direction * product, axis=0)
        moving = (length > target) & (curvature > 0)
        step = np.divide(length, curvature, out=np.zeros_like(length), where=moving)
        solution += step * direction
        residual -= step * product
        ahead = kept(inverse * residual)
        before, length = length, np.sum(residual * ahead, axis=0)
        direction = ahead + np.divide(length, before, out=np.zeros_like(length), where=before > 0) * direction
    raise NonFiniteError(
        f"conjugate gradients did not solve the Newton step in {most_steps:,} iterations: the comparisons connect the "
        "items too weakly for it; a prior (prior_variance) makes the problem well posed"
    )
