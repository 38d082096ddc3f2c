"""Processes that tests start, and the one way in which they end, all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

import psutil

PATIENCE = 30.0
"""Seconds in which a process may end by itself."""


@contextmanager
def running(
    command: Sequence[object],
    *,
    log: IO[bytes],
    env: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the block ends; see `end`.

    Args:
        command: The program and its arguments.
        log: Where it writes.
        env: Its environment; None: ours.
        patience: Seconds in which it may end by itself.
    """
    process = subprocess.Popen(
        [*map(str, command)],
        stdout=log,
        stderr=log,
        env=None if env is None else {**env},
    )
    try:
        yield process
    finally:
        end(process, patience)


def end(process: subprocess.Popen[bytes], patience: float = PATIENCE) -> None:
    """Ask a process to end; kill it and all that it started if it does not.

    A nanny whose worker is being started anew waits for it, half a minute on a busy
    machine; and the worker waits for a scheduler that is gone, for ever. Whoever only
    waited would leave both of them to the tests that follow.
    """
    started = set(_descendants(process))
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    started.update(_descendants(process))
    # Itself first: it would start others for those that it misses, or go on.
    process.kill()
    for one in started:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(started, timeout=PATIENCE)


def _descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return what a process started and what those did; nothing if it has ended."""
    if process.poll() is not None:
        return []
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []
