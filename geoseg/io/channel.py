"""A bounded queue between a thread that makes values and one that uses them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Closed(Exception):
    """The other thread is gone."""


class _Channel(Generic[Item]):
    """A queue of at most `capacity` items; either end may close it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Add an item when there is room.

        Raises:
            _Closed: Nobody will take it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or len(self._items) < self._capacity
            )
            if self._closed:
                raise _Closed
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Yield items until the end.

        Raises:
            _Closed: The end will never come.
        """
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or self._ended or self._items
                )
                if self._closed:
                    raise _Closed
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item

    def end(self) -> None:
        """Say that no more items come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what is there; both sides raise from now on."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def run_beside(
    items: Iterable[Item], use: Callable[[Iterator[Item]], None], *, capacity: int
) -> None:
    """Make items in this thread while `use` takes them in a thread of its own.

    The thread has ended when this returns or raises, whatever happened, and however
    often the user interrupts. An error of
    `items`, an interrupt too, is raised as it was, and `use` gets one where it waits
    for the next item; an error of `use` is raised when the next item is there, or at
    the end.

    Args:
        items: Made one by one, in the calling thread.
        use: Takes the items; it may stop early.
        capacity: Items that may wait, beside the one being made and those in use.
    """
    channel: _Channel[Item] = _Channel(capacity)
    failures: list[BaseException] = []
    done = threading.Event()

    def consume() -> None:
        try:
            use(iter(channel))
        except BaseException as error:
            failures.append(error)  # Raised below, in the thread that asked.
        finally:
            channel.close()
            done.set()

    thread = threading.Thread(target=consume, name="geoseg-writer")
    try:
        thread.start()
        for item in items:
            channel.put(item)
        channel.end()
        done.wait()
    except _Closed:
        pass  # `use` has ended before the items have.
    finally:
        # After an error or an interrupt: `end` was not called, so nothing looks whole.
        channel.close()
        if thread.ident is not None:  # An interrupt may have come before it began.
            _wait(done)
            thread.join()
    if failures:
        # Popped: an error kept by its own traceback would keep files open with it.
        raise failures.pop()


def _wait(done: threading.Event) -> None:
    """Wait for a thread to say that it is done; interrupts are raised after that.

    The files that it writes to must not be removed before. `Thread.join` does not do:
    up to Python 3.13 one that was interrupted takes the thread for ended.
    """
    interrupt: KeyboardInterrupt | None = None
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
