"""Scenes streamed through a Dask cluster with a bounded number of bands in flight."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from distributed import as_completed
from distributed.scheduler import KilledWorker

from geoseg._heap import return_memory
from geoseg.cluster import LOST, RESOURCE, WorkerCount, worker_predictor
from geoseg.errors import ClusterError, GeosegError, SceneError
from geoseg.finish import SceneResult, finish_scene, read_result
from geoseg.graph import (
    BandLogits,
    PartRecord,
    SceneJob,
    blend_band,
    find_part,
    last_uses,
    predict_band,
)

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Result = TypeVar("Result")

TRIES = 3
"""Times that a task is tried before its scene fails."""


@dataclass(frozen=True, slots=True)
class SceneFailure:
    """A scene that could not be finished, and why."""

    scene_id: str
    """Identity in the run."""
    reason: str
    """One line for the report."""


TilesDone = Callable[[str, int], None]
"""Called with a scene's id and the tiles that were just predicted or found done; with
fewer than 0 when a scene is begun again."""


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """What a task gives that would fail again: distributed repeats those that raise."""

    reason: str
    """One line for the report."""


def _once(task: Callable[P, Result]) -> Callable[P, Result | TaskFailure]:
    """Turn our own errors, which come back whenever a task is repeated, into values.

    What the task needed of memory is returned when it ends.
    """

    @wraps(task)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> Result | TaskFailure:
        try:
            return task(*args, **kwargs)
        except ClusterError:
            raise  # Another worker may do it.
        except GeosegError as error:
            return TaskFailure(_reason(error))
        finally:
            return_memory()

    return attempt


@_once
def predict_task(job: SceneJob, index: int, plugin: str) -> BandLogits:
    """`predict_band` on a worker, with the worker's own model."""
    return predict_band(job, index, worker_predictor(plugin))


@_once
def blend_task(
    job: SceneJob, index: int, bands: Sequence[BandLogits | TaskFailure]
) -> PartRecord | TaskFailure:
    """`blend_band` on a worker."""
    logits = []
    for band in bands:
        if isinstance(band, TaskFailure):
            return band
        logits.append(band)
    return blend_band(job, index, logits)


@_once
def finish_task(job: SceneJob) -> SceneResult:
    """`finish_scene` on a worker; parts tell their records, which may be thousands.

    Raises:
        SceneError: A part is not there, or outputs cannot be written.
    """
    records = [find_part(job, band.index) for band in job.parts]
    found = [record for record in records if record is not None]
    if len(found) == len(records):
        return finish_scene(job, found)
    # The scheduler repeats a task whose worker was lost after the last rename.
    result = read_result(Path(job.out), job.scene_id, job.key)
    if result is None:
        raise SceneError(
            f"{len(records) - len(found)} parts of {job.scene_id} are not in "
            f"{job.work}; put -o on a path that every worker sees, or run again"
        )
    return result


@dataclass
class _SceneRun:
    """What the client knows of a scene in flight."""

    job: SceneJob
    records: dict[int, PartRecord] = field(default_factory=dict)
    predictions: dict[int, Any] = field(default_factory=dict)
    waiting: dict[str, Any] = field(default_factory=dict)
    next_band: int = 0
    wanted: set[int] = field(default_factory=set)
    last_use: dict[int, int] = field(default_factory=dict)
    tiles_done: int = 0

    def resume(self) -> int:
        """Find the parts of an earlier run; return the tiles that need no work."""
        for band in self.job.parts:
            record = find_part(self.job, band.index)
            if record is not None:
                self.records[band.index] = record
        missing = [b for b in self.job.parts if b.index not in self.records]
        self.wanted = {need for band in missing for need in band.needs}
        self.last_use = last_uses(self.job)
        bands = self.job.bands
        return sum(len(b) for b in bands if b.index not in self.wanted)

    @property
    def submitted(self) -> bool:
        return self.next_band == len(self.job.bands)


class SceneStream:
    """Runs jobs on a client; yields each scene's result as it is finished.

    Workers that die take tasks of several scenes with them, and distributed blames all
    of these. Scenes so blamed are run once more at the end, one at a time.

    Args:
        client: A `distributed.Client` whose workers have the model.
        plugin: Name of the plugin that holds it.
        jobs: Scenes, in the order in which they are started.
        tiles_done: Told of progress.
        in_flight: Tasks submitted and not finished, at most. None: enough to keep each
            worker busy, late ones too, and no more in memory.
        timeout: Seconds without any worker after which the run ends.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401 (distributed is untyped)
        plugin: str,
        jobs: Iterator[SceneJob],
        tiles_done: TilesDone,
        *,
        in_flight: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._client = client
        self._plugin = plugin
        self._jobs = jobs
        self._tiles_done = tiles_done
        self._in_flight = in_flight
        self._workers = WorkerCount(client, timeout)
        self._queue = as_completed(loop=client.loop, with_results=False)
        self._tasks: dict[str, tuple[_SceneRun, str, int]] = {}
        self._filling: _SceneRun | None = None
        self._suspects: deque[SceneJob] = deque()
        self._one_by_one = False
        self._submitted = 0
        # Runs that share a scheduler must not be given each other's tasks.
        self._token = secrets.token_hex(4)

    def __iter__(self) -> Iterator[SceneResult | SceneFailure]:
        """Run until every job has a result or a failure.

        Raises:
            ClusterError: The scheduler or the last worker is gone.
        """
        self._fill()
        while self._tasks:
            self._await_event()
            future = next(self._queue)
            entry = self._tasks.pop(future.key, None)
            if entry is None:
                continue  # of a scene that failed meanwhile
            outcome = self._handle(future, *entry)
            if outcome is not None:
                yield outcome
            self._fill()

    def _await_event(self) -> None:
        """Wait for a task to end; without workers none would, for ever."""
        while not self._queue.has_ready():
            if self._client.status != "running":
                raise ClusterError(LOST)  # Asking it anything would wait for 30 s.
            self._workers.count()
            with self._queue.thread_condition:
                self._queue.thread_condition.wait(timeout=0.1)

    def _limit(self) -> int:
        if self._in_flight is not None:
            return self._in_flight
        return 4 * max(1, self._workers.count()) + 4

    def _fill(self) -> None:
        """Submit bands until enough are in flight or no job is left."""
        while len(self._tasks) < self._limit():
            if self._filling is None or self._filling.submitted:
                job = self._next_job()
                if job is None:
                    return
                self._filling = _SceneRun(job)
                self._progress(self._filling, self._filling.resume())
                if not self._filling.wanted:
                    self._filling.next_band = len(job.bands)
                    self._finish(self._filling)
                    continue
            self._submit_band(self._filling)

    def _next_job(self) -> SceneJob | None:
        job = next(self._jobs, None)
        if job is None and self._suspects and not self._tasks:
            self._one_by_one = True
            job = self._suspects.popleft()
        return job

    def _progress(self, run: _SceneRun, tiles: int) -> None:
        run.tiles_done += tiles
        self._tiles_done(run.job.scene_id, tiles)

    def _submit_band(self, run: _SceneRun) -> None:
        job, index = run.job, run.next_band
        band = job.bands[index]
        run.next_band += 1
        if index in run.wanted:
            run.predictions[index] = self._submit(
                run,
                "predict",
                index,
                predict_task,
                job,
                index,
                self._plugin,
                # In the order of bands, or logits would wait long for their neighbours.
                priority=-self._submitted,
                resources={RESOURCE: 1},
            )
        if band in job.parts and index not in run.records:
            needs = [run.predictions[need] for need in band.needs]
            # Blending frees logits, so it goes before more predicting.
            self._submit(
                run, "blend", index, blend_task, job, index, needs, priority=10
            )
        for done in [i for i in run.predictions if run.last_use[i] <= index]:
            # The scheduler keeps it for the tasks that depend on it, and no longer.
            del run.predictions[done]

    def _finish(self, run: _SceneRun) -> None:
        self._submit(run, "finish", 0, finish_task, run.job, priority=20)

    def _submit(
        self,
        run: _SceneRun,
        kind: str,
        index: int,
        function: Callable[..., object],
        *args: Any,  # noqa: ANN401 (the task's)
        **how: Any,  # noqa: ANN401 (distributed's)
    ) -> Any:  # noqa: ANN401 (distributed is untyped)
        self._submitted += 1
        # Numbered: the key of a cancelled task is not free again at once.
        key = f"{kind}-{self._token}-{self._submitted}-{run.job.scene_id}-{index}"
        try:
            future = self._client.submit(
                function, *args, key=key, retries=TRIES - 1, pure=False, **how
            )
        except Exception as error:  # Of the many that distributed has for it.
            if self._client.status == "running":
                raise
            raise ClusterError(LOST) from error
        self._tasks[key] = (run, kind, index)
        run.waiting[key] = future
        self._queue.add(future)
        return future

    def _handle(
        self,
        future: Any,  # noqa: ANN401
        run: _SceneRun,
        kind: str,
        index: int,
    ) -> SceneResult | SceneFailure | None:
        del run.waiting[future.key]
        if future.status in ("cancelled", "lost"):
            raise ClusterError(LOST)
        if future.status != "finished":
            return self._fail(run, future.exception())
        if kind == "predict" and future.type is not TaskFailure:
            # Its logits are not fetched.
            self._progress(run, len(run.job.bands[index]))
            return None
        try:
            value = future.result()
        except Exception as error:  # Its worker died, and the task failed elsewhere.
            return self._fail(run, error)
        if isinstance(value, TaskFailure):
            return self._fail(run, value)
        if kind == "finish":
            result: SceneResult = value
            return result
        run.records[index] = value
        if len(run.records) == len(run.job.parts):
            self._finish(run)
        return None

    def _fail(
        self, run: _SceneRun, error: BaseException | TaskFailure
    ) -> SceneFailure | None:
        """Forget the scene's other tasks; its finished parts stay for a later run."""
        if self._client.status != "running":
            raise ClusterError(
                LOST
            )  # Then no task has an answer, and none is to blame.
        for key in run.waiting:
            self._tasks.pop(key, None)
        if self._filling is run:
            self._filling = None
        self._client.cancel([*run.waiting.values(), *run.predictions.values()])
        run.waiting.clear()
        run.predictions.clear()
        if isinstance(error, KilledWorker) and not self._one_by_one:
            self._progress(run, -run.tiles_done)
            self._suspects.append(run.job)
            return None
        reason = _reason(error)
        logger.error("scene %s failed: %s", run.job.scene_id, reason)
        return SceneFailure(run.job.scene_id, reason)


def _reason(error: BaseException | TaskFailure) -> str:
    """Say on one line why a task failed."""
    if isinstance(error, TaskFailure):
        return error.reason
    if isinstance(error, GeosegError):
        return " ".join(str(error).split())
    if isinstance(error, KilledWorker):
        return (
            f"its workers died {error.allowed_failures + 1} times in "
            f"{str(error.task).split('-')[0]}, probably out of memory; use fewer "
            "workers or a smaller batch"
        )
    return " ".join(f"{type(error).__name__}: {error}".split())
