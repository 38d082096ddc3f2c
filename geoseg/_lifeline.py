"""Runs dask's command line and ends with the process that started it.

Standard input is a pipe whose other end the client holds. However the client ends, by
SIGKILL too, the system closes that end, and workers must not go on writing into a run
directory that another run may have taken.
"""

from __future__ import annotations

import os
import sys
import threading


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1024):
        pass
    # Not sys.exit(), which ends this thread only. A nanny's child watches the nanny.
    os._exit(1)


def main() -> None:
    """Run `dask ARGUMENTS...`."""
    # A copy: libraries may close standard input, or read it.
    lifeline = os.dup(sys.stdin.fileno())
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    from dask import config
    from dask.__main__ import main as dask

    from geoseg._heap import SETTINGS

    key = "distributed.nanny.pre-spawn-environ"
    with config.set({key: {**config.get(key, {}), **SETTINGS}}):
        dask()


if __name__ == "__main__":
    main()
