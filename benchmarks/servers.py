"""Dask's servers as processes of a benchmark, which ends if one of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60.0
"""In which a server must be there, or be gone."""


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a server end; kill one that does not."""
    process.terminate()
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_file(file: Path, scheduler: subprocess.Popen[bytes]) -> None:
    """Wait for what a scheduler writes about itself.

    Raises:
        SystemExit: It has ended, or takes too long.
    """
    deadline = time.monotonic() + SECONDS
    while not file.is_file():
        if scheduler.poll() is not None:
            raise SystemExit(f"the scheduler ended with {scheduler.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the scheduler did not start in {SECONDS:g} s")
        time.sleep(0.05)


@contextmanager
def needed(servers: Mapping[str, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Leave the block when a server ends: its clients would wait for it for ever.

    Args:
        servers: By what they are called.

    Raises:
        SystemExit: One has ended within the block.
    """
    over, dead = threading.Event(), list[str]()

    def watch() -> None:
        while not over.wait(0.5):
            for name, process in servers.items():
                if process.poll() is not None:
                    dead.append(f"the {name} ended with {process.returncode}")
                    # Whatever the main thread waits for.
                    os.kill(os.getpid(), signal.SIGINT)
                    return

    # It may be ignored, as in the background of a shell.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except KeyboardInterrupt:
        if dead:
            raise SystemExit(dead[0]) from None
        raise
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
