"""The real command line in processes of its own that begin at once: forked from one that has loaded everything."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "kilter.commands",
        "kilter.train.align",
        "kilter.train.machine",
        "transformers.models.llama.modeling_llama",
        "pytest",
    ]
)


# A context of the process in which `kilter` is to run.
Around = Callable[[], AbstractContextManager[object]]


def kilter(arguments: list[str], said: Path, around: Around = nullcontext) -> BaseProcess:
    """Begin `kilter` with arguments; what it says goes to a file."""
    process = CONTEXT.Process(target=_main, args=(arguments, said, around))
    process.start()
    return process


def _main(arguments: list[str], said: Path, around: Around) -> None:
    from kilter.cli import main

    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.argv = ["kilter", *arguments]
    with around():
        main()


def killed_at_operation(root: Path, number: int) -> Around:
    """SIGKILL itself before an operation on files below a directory, counted from 0."""
    return partial(_told_of_operations, root, partial(_kill_at, number))


def counting_operations(root: Path, count: Path) -> Around:
    """Write down the number of operations on files below a directory."""
    return partial(_told_of_operations, root, partial(_note, count))


def _kill_at(number: int, seen: int) -> None:
    if seen == number:
        os.kill(os.getpid(), signal.SIGKILL)


def _note(count: Path, seen: int) -> None:
    count.write_text(str(seen + 1))


@contextmanager
def _told_of_operations(root: Path, tell: Callable[[int], None]) -> Iterator[None]:
    from data.crashing_disk import recorded

    numbers = itertools.count()
    root.mkdir(parents=True, exist_ok=True)
    with recorded(root, lambda kind, path: tell(next(numbers))):
        yield


def full_disk(size: int, *, at: str, deadly: bool = False) -> Around:
    """No file may grow beyond `size` bytes once the second checkpoint, or the model, is being saved.

    A write beyond it fails as one on a full disk does, also in the middle of a library's own writes; or kills.
    """
    return partial(_full_disk, size, at, deadly)


@contextmanager
def _full_disk(size: int, at: str, deadly: bool) -> Iterator[None]:
    from kilter.train.checkpoint import Keeper

    name = {"the second checkpoint": "save", "the model": "finish"}[at]
    real = getattr(Keeper, name)

    def limited(keeper: Keeper, *arguments: object) -> object:
        if name == "finish" or keeper.saved_step > 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if deadly else signal.SIG_IGN)
        return real(keeper, *arguments)

    setattr(Keeper, name, limited)
    yield
