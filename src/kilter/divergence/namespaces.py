"""Which array library arrays belong to, without the half of NumPy that array-api-compat loads with it."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np


def array_namespace(*arrays: Any) -> Any:
    """The array library of all `arrays`; numbers and None among them belong to any.

    As `array_api_compat.array_namespace`, but NumPy itself (a namespace of the standard from 2.1 on) for its own
    arrays: importing `array_api_compat.numpy` takes longer than importing NumPy, and than most commands.
    """
    numpys = [isinstance(array, np.ndarray | np.generic) for array in arrays]  # numpy.float64 is a float too
    others = (array for array, is_numpy in zip(arrays, numpys, strict=True) if not is_numpy)
    if any(numpys) and all(isinstance(one, int | float | complex | None) for one in others):
        return np
    return array_api_compat.array_namespace(*arrays)
