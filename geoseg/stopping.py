"""Ctrl-C and signals to end: the first is a wish, the second an order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALLED = 128
"""What shells add to the number of a signal that ended a process."""


class Terminated(KeyboardInterrupt):
    """A signal to end, from `kill`, `timeout` or a batch system."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code(end: KeyboardInterrupt) -> int:
    """Return the code that shells expect of a process that was asked to end."""
    return SIGNALLED + int(getattr(end, "number", signal.SIGINT))


class Stop:
    """Whether a run was asked to end."""

    def __init__(self) -> None:
        self._end: Callable[[], object] | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._end is not None

    def ask(self, end: Callable[[], object]) -> None:
        """Wish for an end; `end` raises what the signal would have raised."""
        self._end = end

    def end(self) -> None:
        """Raise what the signal would have raised when it came."""
        if self._end is not None:
            self._end()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Make the first signal to end a wish; a second one does what it did before.

    Only signals that have a handler of Python are taken: one that the system ends the
    process by, or that is ignored, stays so.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Only there can signals be handled.
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    found = {number: signal.getsignal(number) for number in numbers}
    before = {number: end for number, end in found.items() if callable(end)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def wish(number: int, frame: FrameType | None) -> None:
        restore()
        stop.ask(lambda: before[signal.Signals(number)](number, frame))

    for number in before:
        signal.signal(number, wish)
    try:
        yield stop
    finally:
        restore()
