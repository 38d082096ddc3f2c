"""Scenes streamed through a Dask cluster with a bounded number of bands in flight."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distributed import as_completed
from distributed.scheduler import KilledWorker

from geoseg.cluster import LOST, RESOURCE, WorkerCount
from geoseg.errors import ClusterError
from geoseg.finish import SceneResult
from geoseg.graph import SceneJob
from geoseg.scene_run import SceneRun
from geoseg.stopping import Stop
from geoseg.tasks import (
    TRIES,
    TaskFailure,
    blend_task,
    finish_task,
    predict_task,
    reason_of,
)

logger = logging.getLogger(__name__)

MOST_TASKS = 800
"""Tasks in flight, at most, whatever the number of workers: with the logits that wait
for a neighbour, the scheduler knows fewer than 1,000."""

LOOK_UP = 1.0
"""Seconds of looking for work, whole scenes and parts of earlier runs, after which the
stream sees to what else has happened: a stop, lost workers, results."""

GRACE = 25.0
"""Seconds for parts in hand once a run is asked to stop; systems that end jobs kill
what is still there after 30."""


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

Stopping = Callable[[int], None]
"""Called once with the parts that are still finished when a run is asked to stop."""


class SceneStream:
    """Runs jobs on a client; yields each scene's result as it is finished.

    Workers that die take tasks of several scenes with them, and distributed blames all
    of these. Scenes so blamed are run once more at the end, one at a time.

    Args:
        client: A `distributed.Client` whose workers have the model.
        plugin: Name of the plugin that holds it.
        jobs: Scenes, in the order in which they are started; None for each moment that
            gave none, so that a stop is seen while there are thousands of these.
        tiles_done: Told of progress.
        stop: Whether the run was asked to end; None: nobody can ask.
        stopping: Told then of the parts in hand.
        in_flight: Tasks submitted and not finished, at most. None: enough to keep each
            worker busy, late ones too, and no more in memory.
        timeout: Seconds without any worker after which the run ends.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401 (distributed is untyped)
        plugin: str,
        jobs: Iterator[SceneJob | None],
        tiles_done: TilesDone,
        *,
        stop: Stop | None = None,
        stopping: Stopping = lambda parts: None,
        in_flight: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._client = client
        self._plugin = plugin
        self._jobs = jobs
        self._tiles_done = tiles_done
        self._stop, self._stopping = stop or Stop(), stopping
        self._in_flight = in_flight
        self._workers = WorkerCount(client, plugin, timeout)
        self._queue = as_completed(loop=client.loop, with_results=False)
        self._tasks: dict[str, tuple[SceneRun, str, int]] = {}
        self._filling: SceneRun | None = None
        self._jobs_left = True
        self._suspects: deque[SceneJob] = deque()
        self._one_by_one = False
        self._submitted = 0
        # Runs that share a scheduler must not be given each other's tasks.
        self._token = secrets.token_hex(4)

    def __iter__(self) -> Iterator[SceneResult | SceneFailure]:
        """Run until every job has a result or a failure.

        Asked to stop, it finishes the parts in hand and raises what the signal would
        have raised.

        Raises:
            ClusterError: The scheduler or the last worker is gone.
        """
        self._fill()
        while (self._tasks or self._has_work()) and not self._stop.asked:
            yield from self._next_outcome()
            if not self._queue.has_ready():
                self._fill()
        if self._stop.asked:
            yield from self._finish_parts_in_hand()
            self._stop.end()

    def _next_outcome(self) -> Iterator[SceneResult | SceneFailure]:
        """Wait a moment for a task to end; yield its scene's outcome, if it has one.

        Without workers none would end, for ever.
        """
        if not self._queue.has_ready():
            if self._client.status != "running":
                raise ClusterError(LOST)  # Asking it anything would wait for 30 s.
            self._workers.count()
            if self._stop.asked or not self._wants_work():
                with self._queue.thread_condition:
                    self._queue.thread_condition.wait(timeout=0.1)
            return
        future = next(self._queue)
        entry = self._tasks.pop(future.key, None)
        if entry is None:
            return  # of a scene that failed meanwhile
        outcome = self._handle(future, *entry)
        if outcome is not None:
            yield outcome

    def _finish_parts_in_hand(self) -> Iterator[SceneResult | SceneFailure]:
        """Let parts whose tiles are predicted, or being predicted, be written."""
        deadline = time.monotonic() + GRACE
        self._forget_all_but(self._in_hand())
        kinds = [kind for _, kind, _ in self._tasks.values()]
        if kinds:
            self._stopping(len(kinds) - kinds.count("predict"))
        while self._tasks and time.monotonic() < deadline:
            yield from self._next_outcome()

    def _in_hand(self) -> set[str]:
        """Tasks that need no prediction that is still to be started."""
        running = self._running()
        pending, idle = dict[tuple[str, int], str](), set[str]()
        for key, (run, kind, index) in self._tasks.items():
            if kind == "predict":
                pending[run.job.scene_id, index] = key
                if key not in running and not run.waiting[key].done():
                    idle.add(key)
        found = set[str]()
        for key, (run, kind, index) in self._tasks.items():
            if kind != "predict":
                needs = run.job.bands[index].needs if kind == "blend" else ()
                places = [(run.job.scene_id, need) for need in needs]
                keys = {pending[place] for place in places if place in pending}
                if not keys & idle:
                    found |= {key, *keys}
        return found

    def _running(self) -> set[str]:
        """Tasks that a thread of a worker runs at this moment."""
        try:
            stacks = self._client.sync(
                self._client.scheduler.call_stack, keys=None, callback_timeout=5
            )
        except OSError:  # A time out, too: then nothing is waited for.
            return set()
        return {key for tasks in stacks.values() for key in tasks}

    def _forget_all_but(self, kept: set[str]) -> None:
        dropped = []
        for key in self._tasks.keys() - kept:
            run, _, _ = self._tasks.pop(key)
            dropped.append(run.waiting.pop(key))
        self._client.cancel(dropped)

    def _limit(self) -> int:
        if self._in_flight is not None:
            return self._in_flight
        return min(MOST_TASKS, 4 * max(1, self._workers.count()) + 4)

    def _has_work(self) -> bool:
        """Whether there is something that may be begun or submitted now."""
        if self._jobs_left or not (self._filling is None or self._filling.submitted):
            return True
        return bool(self._suspects) and not self._tasks

    def _wants_work(self) -> bool:
        return len(self._tasks) < self._limit() and self._has_work()

    def _fill(self) -> None:
        """Submit bands until enough are in flight, none is left, or time is up."""
        until = time.monotonic() + LOOK_UP
        while self._wants_work() and not self._stop.asked:
            run = self._filling
            if run is None or run.submitted:
                job = self._next_job()
                self._filling = None if job is None else SceneRun(job)
            elif run.resumed:
                self._submit_band(run)
            else:
                self._resume(run)
            if time.monotonic() > until:
                return

    def _next_job(self) -> SceneJob | None:
        if not self._jobs_left:
            self._one_by_one = True
            return self._suspects.popleft()
        try:
            return next(self._jobs)
        except StopIteration:
            self._jobs_left = False
            return None

    def _resume(self, run: SceneRun) -> None:
        run.resume()
        if run.resumed:
            self._progress(run, run.tiles_found())
            if not run.wanted:
                run.next_band = len(run.job.bands)
                self._finish(run)

    def _progress(self, run: SceneRun, tiles: int) -> None:
        run.tiles_done += tiles
        self._tiles_done(run.job.scene_id, tiles)

    def _submit_band(self, run: SceneRun) -> None:
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
                resources={RESOURCE: 1, self._plugin: 1},
            )
        if band.finishes and index not in run.done:
            needs = [run.predictions[need] for need in band.needs]
            # Blending frees logits, so it goes before more predicting.
            self._submit(
                run,
                "blend",
                index,
                blend_task,
                job,
                index,
                needs,
                priority=10,
                resources={self._plugin: 1},
            )
        for done in [i for i in run.predictions if run.last_use[i] <= index]:
            # The scheduler keeps it for the tasks that depend on it, and no longer.
            del run.predictions[done]

    def _finish(self, run: SceneRun) -> None:
        self._submit(
            run,
            "finish",
            0,
            finish_task,
            run.job,
            priority=20,
            resources={self._plugin: 1},
        )

    def _submit(
        self,
        run: SceneRun,
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
        run: SceneRun,
        kind: str,
        index: int,
    ) -> SceneResult | SceneFailure | None:
        del run.waiting[future.key]
        if future.status in ("cancelled", "lost"):
            raise ClusterError(LOST)
        if future.status != "finished":
            return self._fail(run, future.exception())
        if kind != "finish" and future.type is not TaskFailure:
            # Nothing is fetched: logits stay where they are, records are on disk.
            self._done(run, kind, index)
            return None
        try:
            value = future.result()
        except Exception as error:  # Its worker died, and the task failed elsewhere.
            return self._fail(run, error)
        if isinstance(value, TaskFailure):
            return self._fail(run, value)
        result: SceneResult = value
        return result

    def _done(self, run: SceneRun, kind: str, index: int) -> None:
        if kind == "predict":
            self._progress(run, len(run.job.bands[index]))
            return
        run.done.add(index)
        if len(run.done) == len(run.job.parts) and not self._stop.asked:
            self._finish(run)

    def _fail(
        self, run: SceneRun, error: BaseException | TaskFailure
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
        reason = reason_of(error)
        logger.error("scene %s failed: %s", run.job.scene_id, reason)
        return SceneFailure(run.job.scene_id, reason)
