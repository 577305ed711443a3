"""Which array library values belong to."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np


def array_namespace(*values: Any) -> Any:
    """The library of the arrays, as `array_api_compat.array_namespace`; numbers belong to any.

    For arrays of NumPy it is NumPy itself, which follows the standard from 2.0 on: the compatible one loads every part
    of NumPy, which takes longer than all that the command line computes.
    """
    if all(isinstance(value, np.ndarray | np.generic | int | float) for value in values):
        return np
    return array_api_compat.array_namespace(*values)
