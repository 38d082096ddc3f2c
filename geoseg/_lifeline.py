"""Runs dask's command line and ends with the process that started it.

Standard input is a pipe whose other end the client holds. However the client ends, by
SIGKILL too, the system closes that end, and workers must not go on writing into a run
directory that another run may have taken.
"""

from __future__ import annotations

import os
import sys
import threading

from geoseg._heap import SETTINGS, collect_less_often

_FAILURES = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"

_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"

_SERVERS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # Workers are started anew, and know nothing of this process.
    "distributed.worker.preload": [
        "from geoseg._heap import collect_less_often\ncollect_less_often()\n"
    ],
}
"""Nobody looks at a dashboard: what feeds one takes nine tenths of the time of servers
that wait for the model."""


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
    collect_less_often()
    # Three tries, as for a task that raises: the third death is not allowed.
    os.environ.setdefault(_FAILURES, "2")
    from dask import config
    from dask.__main__ import main as dask

    kept = config.get(_ENVIRONMENT, {})
    with config.set({_ENVIRONMENT: {**kept, **SETTINGS}, **_SERVERS}):
        dask()


if __name__ == "__main__":
    main()
