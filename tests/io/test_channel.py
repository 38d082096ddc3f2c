from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from geoseg.io.channel import run_beside


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "writer" in thread.name}


def test_items_come_in_order_in_another_thread() -> None:
    seen: list[int] = []
    names: set[str] = set()

    def use(items: Iterator[int]) -> None:
        names.add(threading.current_thread().name)
        seen.extend(items)

    run_beside(iter(range(100)), use, capacity=3)
    assert seen == list(range(100))
    assert names == {"geoseg-writer"}
    assert not threads()


def test_no_more_items_are_made_than_may_wait() -> None:
    made: list[int] = []
    most = 0

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    def use(numbers: Iterator[int]) -> None:
        nonlocal most
        for number in numbers:
            most = max(most, len(made) - number)

    run_beside(items(), use, capacity=2)
    assert len(made) == 50
    assert most <= 4, "two wait, one is being made, one is in use"


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_error_of_the_items_is_raised_and_ends_the_thread(
    error: type[BaseException],
) -> None:
    outcomes: list[str] = []

    def items() -> Iterator[int]:
        yield 1
        raise error("made to fail")

    def use(numbers: Iterator[int]) -> None:
        try:
            list(numbers)
        except BaseException:
            outcomes.append("told")
            raise
        outcomes.append("whole")

    with pytest.raises(error, match="made to fail"):
        run_beside(items(), use, capacity=1)
    assert outcomes == ["told"]
    assert not threads()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_an_error_of_the_writer_stops_the_items(taken: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            made.append(number)
            yield number

    def use(numbers: Iterator[int]) -> None:
        for _ in range(taken):
            next(numbers)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_beside(items(), use, capacity=2)
    assert len(made) <= taken + 4
    assert not threads()


def test_an_error_of_the_writer_after_the_last_item_is_raised() -> None:
    def use(numbers: Iterator[int]) -> None:
        assert list(numbers) == [1]
        raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        run_beside([1], use, capacity=2)


def test_an_interrupt_while_the_writer_is_slow_ends_it(
    request: pytest.FixtureRequest,
) -> None:
    told = threading.Event()
    # A shell that starts this in the background has Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def use(numbers: Iterator[int]) -> None:
        next(numbers)
        _thread.interrupt_main()  # The items wait for room, or for this thread, now.
        try:
            for _ in numbers:
                told.wait(0.01)
        except BaseException:
            told.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        run_beside(iter(range(100_000)), use, capacity=1)
    assert told.is_set()
    assert not threads()


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("endless", [True, False])
def test_interrupts_do_not_leave_the_writer_behind(
    times: int, endless: bool, request: pytest.FixtureRequest
) -> None:
    """Interrupted before the last item, or while only the writer is still at work."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    main, written = threading.main_thread().ident, threading.Event()
    assert main is not None

    def use(numbers: Iterator[int]) -> None:
        next(numbers)
        for _ in range(times):
            time.sleep(0.1)  # The other thread waits for this one by now.
            signal.pthread_kill(main, signal.SIGINT)  # Wakes it from its waiting.
        time.sleep(0.2)
        written.set()

    with pytest.raises(KeyboardInterrupt):
        run_beside(iter(range(100_000 if endless else 1)), use, capacity=1)
    assert written.is_set()
    assert not threads()
