"""What a command asks of the machine before it begins: the one place where process-wide settings are made."""

from __future__ import annotations

import ctypes
import os
import sys

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def settle(device: str = "cpu") -> None:
    """Keep freed memory for the next step instead of returning it to the system page by page.

    A training step on a CPU frees and takes back gigabytes; giving each buffer back to the kernel costs more in page
    faults than many a matrix product. Call before torch allocates anything. Does nothing outside glibc.
    """
    if device == "cpu" and sys.platform == "linux":
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):
            return
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
