"""What a command asks of the machine before it begins: the one place where process-wide settings are made."""

from __future__ import annotations

import ctypes
import os
import sys

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def settle() -> None:
    """Keep freed memory for the next step, and let waiting threads sleep. Call before torch is imported.

    A training step on a CPU frees and takes back gigabytes; giving each buffer back to the kernel costs more in page
    faults than many a matrix product. And a thread that waits for the others by spinning, as is the default, holds
    the very core that they need as soon as anything else runs on the machine. Does nothing outside Linux.

    MKL may add in another order from one call to the next, by where buffers happen to lie: on AMD's processors it does,
    and then no run has the bits of another. MKL_CBWR=AUTO forbids that at little cost (Intel's "conditional numerical
    reproducibility"), everywhere.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
