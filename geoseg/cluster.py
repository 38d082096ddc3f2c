"""The workers of a cluster: one model each, and how many there are."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker
from distributed.protocol.pickle import dumps

from geoseg.admission import (
    REFUSALS,
    Requirements,
    explain_refusal,
    refusal,
    refusals,
)
from geoseg.clusters.opening import open_cluster
from geoseg.errors import ClusterError

if TYPE_CHECKING:
    from geoseg.clusters.config import ClusterConfig
    from geoseg.inference import Predictor, PredictorConfig

logger = logging.getLogger(__name__)

RESOURCE = "predict"
"""What a worker offers once and each prediction takes: one model runs at a time."""

LOST = (
    "the connection to the scheduler was lost; start the run again, finished parts "
    "are kept"
)
"""Said when nothing more can be asked of the scheduler."""


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
        self.wanted = Requirements.here(config)

    async def setup(self, worker: Any) -> None:  # noqa: ANN401 (distributed is untyped)
        """Offer the resources; called by distributed on every worker, late ones too.

        Raises:
            ClusterError: The worker has another geoseg or other weights. It gets no
                resource, and so no task.
        """
        try:
            # In a thread: importing torch takes seconds, hashing weights too.
            await asyncio.to_thread(self.wanted.check, worker.address)
        except ClusterError as error:
            # Nobody waits for the answer of a worker that joins late.
            worker.log_event(REFUSALS, refusal(self.name, worker.address, error))
            raise
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._device = _device_of(self.config.device, worker.name)
        for other in worker.plugins.values():
            if isinstance(other, ModelPlugin) and other is not self:
                # Of an earlier run; one that still goes on loads its model again.
                other.release()
        # Its name, too, without limit: a worker that this plugin refused may have been
        # taken by that of an earlier run, and each task asks for the right one.
        await worker.set_resources(**{RESOURCE: 1, self.name: sys.maxsize})
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
        return {"config": self.config, "name": self.name, "wanted": self.wanted}


def _schedule_waiting(address: str, dask_scheduler: Any) -> None:  # noqa: ANN401
    """Run by the scheduler: give a worker the tasks that had no worker to run on."""
    worker = dask_scheduler.workers[address]
    found = dask_scheduler.bulk_schedule_unrunnable_after_adding_worker(worker)
    dask_scheduler.transitions(found, f"geoseg-resources-{address}")


def plugin_name(config: PredictorConfig) -> str:
    """Name of the plugin on every worker, and of the resource that it offers.

    Runs that share a scheduler must not be given each other's model; and what has a
    name already is not looked at again: other software of the client, another name.
    """
    wanted = Requirements.here(config)
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()
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
    with open_cluster(config, model, parts) as client:
        give_model(client, model)
        yield client


def give_model(client: Any, model: PredictorConfig) -> None:  # noqa: ANN401
    """Give all workers of a cluster the model, those that join later too.

    A scheduler that has it from an earlier run hands it out no more. Workers that were
    refused then, because they had joined late, are looked at again: the reason may have
    gone. Those that are still of no use get no work.

    Raises:
        ClusterError: A worker that is there has another geoseg, or other weights.
    """
    plugin = ModelPlugin(model)
    try:
        client.register_plugin(plugin)
    except Exception as error:  # Whatever importing geoseg on a worker raises.
        why = explain_refusal(client, error)
        # Or the scheduler would take the next call's for the same, and say nothing.
        with suppress(KeyError):  # from a worker that did not even unpack it
            client.unregister_worker_plugin(plugin.name)
        raise why from error
    workers = client.scheduler_info(n_workers=-1)["workers"]
    without = _without(plugin.name, workers)
    if without:
        client.run(_admit, plugin, workers=without, on_error="return")


async def _admit(plugin: ModelPlugin, dask_worker: Any) -> None:  # noqa: ANN401
    """Run by a worker: take a plugin, or be refused once more."""
    await dask_worker.plugin_add(plugin, plugin.name)


def _without(plugin: str, workers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Addresses of workers that do not offer a plugin's model."""
    return [a for a, worker in workers.items() if plugin not in worker["resources"]]


class WorkerCount:
    """Counts the workers of a cluster, which join late, die, and are started again.

    Only those that offer the model count: no others will ever take a prediction.
    """

    def __init__(self, client: Any, plugin: str, timeout: float) -> None:  # noqa: ANN401
        self._client, self._plugin, self._timeout = client, plugin, timeout
        self._number, self._asked, self._seen = 0, -math.inf, time.monotonic()
        self._told = set[str]()

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
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except OSError as error:
            raise ClusterError(LOST) from error
        without = _without(self._plugin, workers)
        offering = [worker for a, worker in workers.items() if a not in without]
        self._number = sum(map(_is_of_use, offering))
        if without:
            self._tell_refusals(without)
        if self._number:
            self._seen = now
        elif now - self._seen > self._timeout:
            raise ClusterError(
                f"{self._why(without, bool(offering))}; finished parts are kept, the "
                "same call goes on"
            )
        return self._number

    def _tell_refusals(self, without: list[str]) -> None:
        """Warn of workers that joined late and do nothing, each time once."""
        for reason in refusals(self._client, self._plugin, without):
            if reason not in self._told:
                self._told.add(reason)
                logger.warning("%s; it gets no work", reason)

    def _why(self, without: list[str], offering: bool) -> str:
        if offering:
            return (
                "all workers are paused, as they are short of memory; start them with "
                "a higher --memory-limit"
            )
        if not without:
            return "all workers are gone"
        address = self._client.scheduler.address
        told = refusals(self._client, self._plugin, without)
        why = told[-1:] or ["start them again, with geoseg installed"]
        return f"no worker of --scheduler {address} has the model: {why[0]}"


def _is_of_use(worker: Mapping[str, Any]) -> bool:
    """Tell a worker that takes tasks, or has one, from one that waits for memory.

    Dask pauses workers at 80 % of their memory. One that nothing runs on frees none.
    """
    if worker["status"] != "paused":
        return True
    return bool(worker["metrics"].get("task_counts", {}).get("executing"))


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
