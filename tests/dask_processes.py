"""`dask scheduler` and `dask worker` as processes of their own, run as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

TESTS = Path(__file__).parent


@contextmanager
def dask_processes(
    folder: Path, *, common: Sequence[object] = (), worker: Sequence[object] = ()
) -> Iterator[Path]:
    """Run a scheduler and a `dask worker` that can import `stubs`.

    Args:
        folder: Where they write.
        common: More arguments of both.
        worker: More arguments of the worker.

    Yields:
        The scheduler's file, which is written a little later.
    """
    file = folder / "scheduler.json"
    both = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1", *common]
    commands: list[list[object]] = [
        ["scheduler", *both, "--port", "0"],
        ["worker", *both, "--nthreads", "2", "--local-directory", folder, *worker],
    ]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    with ExitStack() as ending:
        log = ending.enter_context((folder / "log").open("wb"))
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, command)],
                env={**os.environ, "PYTHONPATH": paths},
                stdout=log,
                stderr=log,
            )
            # By the signal that a nanny passes on to its workers.
            ending.callback(process.wait)
            ending.callback(process.terminate)
        yield file
