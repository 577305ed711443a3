"""Stopping when asked: Ctrl-C and SIGTERM let the step in hand be finished and the run be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from kilter.model.workers import ALONE, Workers

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAsked(BaseException):
    """Raised where a run may be left, once somebody has asked for it."""

    def __init__(self, signal_number: int) -> None:
        self.signal = signal_number


class Stop:
    """Whether somebody has asked the run, that is any of its workers, to stop."""

    def __init__(self, workers: Workers = ALONE) -> None:
        self.workers = workers
        self.signal: int | None = None

    def check(self, *_: object) -> None:
        """Together: raise StopAsked if somebody has: a place where the run may be left."""
        if signal_number := self.workers.largest(self.signal or 0):
            raise StopAsked(signal_number)


@contextmanager
def stop_on_signals(console: Console, workers: Workers = ALONE) -> Iterator[Stop]:
    """Note SIGINT and SIGTERM instead of dying of them; a second SIGINT is obeyed at once.

    Outside the main thread, where Python allows no handlers, signals are left as they are.
    """
    stop = Stop(workers)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, _: FrameType | None) -> None:
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        console.print(f"{signal.Signals(number).name}: finishing the step, then saving{again}", highlight=False)

    former = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
