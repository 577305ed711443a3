"""What array libraries have for gradients, under one name."""

from __future__ import annotations

from typing import Any

from array_api_compat import is_jax_array, is_torch_array

Array = Any


def stop_gradient(values: Array) -> Array:
    """The same numbers as constants: cut off from the graph that they came from, where the library has one."""
    if is_torch_array(values):
        return values.detach()
    if is_jax_array(values):
        from jax import lax

        return lax.stop_gradient(values)
    return values
