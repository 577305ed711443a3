"""One completion with its prompt, as token ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Weights = NDArray[np.float32]


class TokenSequence(NamedTuple):
    """Prompt and completion as one path of token ids.

    `ids[first:]` is the completion, and `weights` has one edge weight for each of its tokens (None: all 1).
    A weight of 0 leaves a token unscored, as for the user's turns in a multi-turn conversation.
    Sequences of different `variant` never share nodes, even where their tokens agree.

    >>> TokenSequence(np.array([7, 8, 1, 2], np.int32), first=2).ids[2:]
    array([1, 2], dtype=int32)
    """

    ids: Ids
    first: int
    weights: Weights | None = None
    variant: int = 0
