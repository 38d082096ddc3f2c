"""`dask scheduler` and `dask worker` as processes of their own, run as a user would."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from processes import PATIENCE, running

from geoseg._processes import read_address

TESTS = Path(__file__).parent


@contextmanager
def dask_processes(
    folder: Path,
    *,
    workers: int = 1,
    common: Sequence[object] = (),
    worker: Sequence[object] = (),
    patience: float = PATIENCE,
) -> Iterator[Path]:
    """Run a scheduler and `dask worker`s that can import `stubs`.

    Args:
        folder: Where they write; all that they say goes to the file `log`.
        workers: How often `dask worker` is called.
        common: More arguments of all.
        worker: More arguments of the workers.
        patience: Seconds in which each may end by itself.

    Yields:
        The scheduler's file, which is written a little later.
    """
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    both = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1", *common]
    join = ["--nthreads", "2", "--local-directory", folder, *worker]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths}
    with ExitStack() as ending:
        log = ending.enter_context((folder / "log").open("wb"))
        commands = [["scheduler", *both, "--port", "0"]]
        commands += workers * [["worker", *both, *join]]
        # Ended in reverse: a worker that is being started needs its scheduler to end.
        for command in commands:
            ending.enter_context(
                running([*dask, *command], log=log, env=environment, patience=patience)
            )
        yield file


def wait_for_address(file: Path) -> str:
    """Wait until a scheduler's file is there; return its address."""
    for _ in range(300):
        address = read_address(file)
        if address is not None:
            return address
        time.sleep(0.1)
    raise AssertionError("the scheduler did not start in 30 s")
