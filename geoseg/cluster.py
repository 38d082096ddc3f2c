"""The Dask cluster: local subprocesses or a given scheduler, one model per worker."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from dask.system import CPU_COUNT
from distributed import Client, WorkerPlugin, get_worker
from distributed.comm.core import connect as connect_to
from distributed.protocol.pickle import dumps
from distributed.system import MEMORY_LIMIT

from geoseg._processes import local_cluster
from geoseg.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from geoseg.inference import Predictor, PredictorConfig

RESOURCE = "predict"
"""What a worker offers once and each prediction takes: one model runs at a time."""

LOST = (
    "the connection to the scheduler was lost; start the run again, finished parts "
    "are kept"
)
"""Said when nothing more can be asked of the scheduler."""

WORKER_BYTES = 2 << 30
"""Memory set aside for a local worker beside its model: libraries, a band, a part."""

_GOODBYE = 5.0
"""Seconds that a scheduler has to answer when its client leaves."""

_LOGGING = "DASK_LOGGING__DISTRIBUTED"
"""Environment variable of the log level of distributed."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the work runs."""

    workers: int | None = None
    """Worker processes of a local cluster; None: by GPUs, or by cores and memory."""
    threads: int = 2
    """Threads of a worker, >= 2 so that blending never waits behind prediction."""
    scheduler: str | None = None
    """Address of a running scheduler; None starts a local cluster."""
    timeout: float = 30.0
    """Seconds to wait for the scheduler and its first worker."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number is too small.
        """
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers do no work; use 1 or more")
        if self.threads < 2:
            raise ConfigError(
                f"cluster.threads is {self.threads}, and blending would wait behind "
                "prediction; use 2 or more"
            )
        if not self.timeout > 0:
            raise ConfigError(f"a timeout of {self.timeout} s is none; use more than 0")


class ModelPlugin(WorkerPlugin):
    """Gives a worker the model and the resource to run it.

    It carries a path and a hash. The model itself is loaded once, by the first task
    that needs it, so that a failure is that task's and reaches the user. A scheduler
    that runs for long keeps the plugin, and with it the model, for the next run.
    """

    idempotent = True

    def __init__(self, config: PredictorConfig) -> None:
        self.config = config
        self.name = plugin_name(config)

    async def setup(self, worker: Any) -> None:  # noqa: ANN401 (distributed is untyped)
        """Offer the resource; called by distributed on every worker, late ones too."""
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._device = _device_of(self.config.device, worker.name)
        for other in worker.plugins.values():
            if isinstance(other, ModelPlugin) and other is not self:
                # Of an earlier run; one that still goes on loads its model again.
                other.release()
        await worker.set_resources(**{RESOURCE: 1})
        # The scheduler looked for waiting tasks when the worker joined, before it had
        # the resource; it would not look again, and wait for ever.
        await worker.scheduler.run_function(
            function=dumps(_schedule_waiting), args=dumps((worker.address,))
        )

    def predictor(self) -> Predictor:
        """Return the worker's predictor; load it on the first call."""
        with self._lock:
            predictor = self._predictor
            if predictor is None:
                # Not above: the scheduler imports this module, and needs no torch.
                from geoseg.inference import Predictor

                predictor = Predictor.load(self.config, device=self._device)
                self._predictor = predictor
            return predictor

    def release(self) -> None:
        """Let go of the model's memory."""
        self._predictor = None

    def __getstate__(self) -> dict[str, Any]:
        """Travel as a configuration; lock and model stay where they are."""
        return {"config": self.config, "name": self.name}


def _schedule_waiting(address: str, dask_scheduler: Any) -> None:  # noqa: ANN401
    """Run by the scheduler: give a worker the tasks that had no worker to run on."""
    worker = dask_scheduler.workers[address]
    found = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
    dask_scheduler.transitions(found, f"geoseg-resources-{address}")


def plugin_name(config: PredictorConfig) -> str:
    """Name of the plugin on every worker; another model, another name."""
    # Runs that share a scheduler must not be given each other's model.
    digest = hashlib.sha256(repr(config).encode()).hexdigest()
    return f"geoseg-model-{digest[:16]}"


def worker_predictor(name: str) -> Predictor:
    """Return the predictor of the worker that runs the calling task.

    Args:
        name: Name of the plugin that holds it.

    Raises:
        ClusterError: The worker joined without the plugin.
    """
    worker = get_worker()
    plugin = worker.plugins.get(name)
    if plugin is None:
        raise ClusterError(
            f"worker {worker.address} has no geoseg model; start the run again"
        )
    assert isinstance(plugin, ModelPlugin)
    return plugin.predictor()


@contextmanager
def connect(config: ClusterConfig, model: PredictorConfig, parts: int) -> Iterator[Any]:
    """Give a client whose workers have the model; local workers end with the block.

    Args:
        config: Where the work runs.
        model: What the workers load.
        parts: Parts there are to do: no more local workers are started.

    Raises:
        ClusterError: The scheduler does not answer, or has no worker that can import
            geoseg.
    """
    opened = (
        _local(config, model, parts) if config.scheduler is None else _given(config)
    )
    with opened as client:
        try:
            client.register_plugin(ModelPlugin(model))
        except Exception as error:  # Whatever importing geoseg on a worker raises.
            raise ClusterError(
                f"a worker cannot import geoseg ({type(error).__name__}: {error}); "
                "install the same version of geoseg there"
            ) from error
        yield client


class WorkerCount:
    """Counts the workers of a cluster, which join late, die, and are started again.

    Only those that offer the model count: no others will ever take a prediction.
    """

    def __init__(self, client: Any, timeout: float) -> None:  # noqa: ANN401
        self._client, self._timeout = client, timeout
        self._number, self._asked, self._seen = 0, -math.inf, time.monotonic()

    def count(self) -> int:
        """Number of workers with the model, at most a second old.

        Raises:
            ClusterError: For the whole timeout there was none.
        """
        now = time.monotonic()
        if now - self._asked < 1:
            return self._number
        self._asked = now
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        except OSError as error:
            raise ClusterError(LOST) from error
        self._number = sum(RESOURCE in worker["resources"] for worker in workers)
        if self._number:
            self._seen = now
        elif now - self._seen > self._timeout:
            left = "no worker has the model" if workers else "all workers are gone"
            raise ClusterError(
                f"{left}; finished parts are kept, the same call goes on"
            )
        return self._number


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
def _given(config: ClusterConfig) -> Iterator[Any]:
    try:
        _knock(str(config.scheduler), config.timeout)
        client = Client(config.scheduler, timeout=config.timeout, set_as_default=False)
    except Exception as error:  # A port of another service answers anything.
        raise ClusterError(
            f"scheduler {config.scheduler} did not answer within {config.timeout:g} s; "
            "check the address, and that `dask scheduler` runs there"
        ) from error
    with ExitStack() as ending:
        ending.callback(_leave, client)
        _wait_for_worker(
            client,
            config,
            f"scheduler {config.scheduler} has no worker; start some with `dask "
            f"worker {config.scheduler} --nthreads {config.threads}`",
        )
        yield client


def _leave(client: Any) -> None:  # noqa: ANN401 (distributed is untyped)
    """Close a client; its scheduler may be gone, and not answer the good-bye."""
    log = logging.getLogger("distributed.client")
    level = log.level
    # It would print the tracebacks of its own attempts to come back.
    log.setLevel(logging.CRITICAL)
    try:
        client.close(timeout=_GOODBYE)
    finally:
        log.setLevel(level)


def _knock(address: str, timeout: float) -> None:
    """Shake hands with a scheduler; `Client` would wait for a silent one for ever."""

    async def knock() -> None:
        async with asyncio.timeout(timeout):
            comm = await connect_to(address, timeout=timeout)
        comm.abort()

    # In a thread: the caller's may run an event loop, as notebooks do.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, knock()).result()


@contextmanager
def _local(config: ClusterConfig, model: PredictorConfig, parts: int) -> Iterator[Any]:
    workers = config.workers or default_workers(model, _folder_bytes(model.folder))
    late = f"within {config.timeout:g} s; raise cluster.timeout on a busy machine"
    with (
        tempfile.TemporaryDirectory(
            prefix="geoseg-", ignore_cleanup_errors=True
        ) as scratch,
        ExitStack() as ending,
    ):
        number = max(1, min(workers, parts))
        try:
            with _child_environment():
                address = ending.enter_context(
                    local_cluster(number, config.threads, config.timeout, Path(scratch))
                )
            client = Client(address, timeout=config.timeout, set_as_default=False)
        except (OSError, RuntimeError) as error:
            raise ClusterError(
                f"a local cluster did not start {late} ({error})"
            ) from error
        ending.callback(_leave, client)
        _wait_for_worker(client, config, f"no local worker started {late}")
        yield client


def _wait_for_worker(client: Any, config: ClusterConfig, message: str) -> None:  # noqa: ANN401
    try:
        client.wait_for_workers(1, timeout=config.timeout)
    except OSError as error:  # TimeoutError among them
        raise ClusterError(message) from error


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


def _folder_bytes(folder: str) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _device_of(device: str, name: object) -> str:
    """Spread workers over GPUs: worker 0 takes cuda:0, worker 1 cuda:1, ..."""
    if device != "cuda":
        return device
    import torch

    count = max(1, torch.cuda.device_count())
    index = name if isinstance(name, int) else 0
    if isinstance(name, str) and name.isdigit():
        index = int(name)
    return f"cuda:{index % count}"
