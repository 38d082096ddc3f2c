"""Worker processes on this machine, as many as it can carry."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dask.system import CPU_COUNT
from distributed import Client
from distributed.system import MEMORY_LIMIT

from geoseg._processes import local_cluster as local_processes
from geoseg.clusters.client import leave, wait_for_worker
from geoseg.clusters.config import ClusterConfig
from geoseg.clusters.security import security_of, server_settings
from geoseg.errors import ClusterError

if TYPE_CHECKING:
    from geoseg.inference import PredictorConfig

WORKER_BYTES = 2 << 30
"""Memory set aside for a local worker beside its model: libraries, a band, a part."""

_LOGGING = "DASK_LOGGING__DISTRIBUTED"
"""Environment variable of the log level of distributed."""


@contextmanager
def local_cluster(
    config: ClusterConfig, model: PredictorConfig, parts: int
) -> Iterator[Any]:
    """Give a client of new processes, which end with the block.

    Args:
        config: How many, how large.
        model: What the workers load: how many fit depends on it.
        parts: Parts there are to do: no more workers are started.

    Raises:
        ClusterError: They do not start in time.
    """
    workers = config.workers or default_workers(model, _weight_bytes(model.folder))
    late = f"within {config.timeout:g} s; raise cluster.timeout on a busy machine"
    with (
        tempfile.TemporaryDirectory(
            prefix="geoseg-", ignore_cleanup_errors=True
        ) as scratch,
        ExitStack() as ending,
    ):
        number = max(1, min(workers, parts))
        security = security_of(config.tls)
        processes = local_processes(
            number,
            config.threads,
            config.timeout,
            Path(scratch),
            server_settings(security),
        )
        try:
            with _child_environment():
                address = ending.enter_context(processes)
            client = Client(
                address, timeout=config.timeout, security=security, set_as_default=False
            )
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                f"a local cluster did not start {late} ({error})"
            ) from error
        ending.callback(leave, client)
        wait_for_worker(client, config.timeout, f"no local worker started {late}")
        yield client


def default_workers(model: PredictorConfig, model_bytes: int) -> int:
    """Workers of a local cluster: one a GPU, else as cores and free memory allow."""
    if model.device.startswith("cuda"):
        import torch

        return 1 if ":" in model.device else torch.cuda.device_count()
    # dask's counts: they know of containers and of cores set aside.
    cores = CPU_COUNT // model.torch_threads
    free = min(psutil.virtual_memory().available, MEMORY_LIMIT)
    room = free // (WORKER_BYTES + 3 * model_bytes)
    return max(1, min(cores, room))


@contextmanager
def _child_environment() -> Iterator[None]:
    """Start processes that run no code of the current folder and log errors only."""
    added = {
        # `python -m` looks for modules in the current folder first: a `dask.py` beside
        # the scenes would run.
        "PYTHONSAFEPATH": "1",
        # The chatter of started processes is nothing for the user's screen.
        _LOGGING: os.environ.get(_LOGGING, "error"),
    }
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _weight_bytes(folder: str) -> int:
    """Return how large a model folder is, or the file of a checkpoint."""
    path = Path(folder)
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())
