"""A scheduler and workers on this machine: processes that live and die with us.

Not distributed's `SubprocessCluster`: it leaves the scheduler's messages in a pipe that
nobody reads, so that 64 kB of them block it for ever; Ctrl-C reaches its processes
before their client; it waits half a minute for a scheduler that has died; and of a
client that is killed its processes know nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HOST = "127.0.0.1"


@contextmanager
def local_cluster(
    workers: int,
    threads: int,
    timeout: float,
    scratch: Path,
    common: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Run a scheduler and workers until the block ends.

    Args:
        workers: Worker processes, named by number from 0.
        threads: Threads of each.
        timeout: Seconds in which the scheduler must be there.
        scratch: Folder for what they write while they run.
        common: More options of all servers, their security among them.

    Yields:
        Address of the scheduler; workers join it a little later.

    Raises:
        RuntimeError: The scheduler did not start.
    """
    file, log = scratch / "scheduler.json", scratch / "scheduler.log"
    with ExitStack() as ending:
        stream = ending.enter_context(log.open("wb"))
        options = {**(common or {}), "host": HOST, "port": 0, "dashboard": False}
        options |= {"dashboard_address": None, "scheduler_file": str(file)}
        scheduler = _start("distributed.Scheduler", options, stderr=stream)
        ending.callback(_end, scheduler)
        address = _address(file, scheduler, timeout)
        if address is None:
            said = log.read_text(errors="replace").strip().splitlines()
            raise RuntimeError(said[-1] if said else "its scheduler does not answer")
        for number in range(workers):
            options = {**(common or {}), "host": HOST, "nthreads": threads}
            options |= {"name": number}
            # Bands are bounded by design; spilling them to disk would only slow them.
            options |= {"memory_limit": 0, "local_directory": str(scratch)}
            # A worker that cannot join ends long after its client has said why.
            options |= {"death_timeout": max(60.0, timeout)}
            ending.callback(_end, _start("distributed.Nanny", options, address))
        yield address


def _start(
    kind: str,
    options: dict[str, Any],
    *arguments: str,
    stderr: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start one of distributed's servers; without `stderr` it has the client's."""
    spec = json.dumps({"cls": kind, "opts": options})
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "geoseg._lifeline"),
            *("spec", *arguments, "--spec", spec),
        ],
        stdin=subprocess.PIPE,
        stderr=stderr,
        # Away from the terminal: Ctrl-C is for the client, which then ends them.
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children: whatever it had finished is on disk."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _address(
    file: Path, scheduler: subprocess.Popen[bytes], timeout: float
) -> str | None:
    """Wait for the file in which a scheduler says where it is."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and scheduler.poll() is None:
        address = read_address(file)
        if address is not None:
            return address
        time.sleep(0.05)
    return None


def read_address(file: Path) -> str | None:
    """Read a scheduler's address from the file it writes about itself, None if none."""
    try:
        address = json.loads(file.read_text())["address"]
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or half of it
        return None
    return address if isinstance(address, str) else None
