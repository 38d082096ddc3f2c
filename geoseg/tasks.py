"""What workers run: the tasks of a scene, and how their failures travel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
from distributed.scheduler import KilledWorker

from geoseg._heap import return_memory
from geoseg.cluster import worker_predictor
from geoseg.errors import (
    ClusterError,
    GeosegError,
    SceneAccessError,
    SceneError,
)
from geoseg.finish import SceneResult, finish_scene, read_result
from geoseg.graph import (
    BandLogits,
    PartRecord,
    SceneJob,
    blend_band,
    find_part,
    predict_band,
)
from geoseg.io.location import without_secrets
from geoseg.io.lock import in_turn
from geoseg.layout import finishing_name

logger = logging.getLogger(__name__)

P = ParamSpec("P")
Result = TypeVar("Result")

TRIES = 3
"""Times that a task is tried before its scene fails."""


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """What a task gives that would fail again: distributed repeats those that raise."""

    reason: str
    """One line for the report."""


def _settled(task: Callable[P, Result]) -> Callable[P, Result | TaskFailure]:
    """Turn our own errors, which come back whenever a task is repeated, into values.

    Those of disks and networks may pass, so the task is tried again before. Not by the
    scheduler, which would write all its arguments into the worker's log.

    What the task needed of memory is returned when it ends.
    """

    @wraps(task)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> Result | TaskFailure:
        try:
            return _tried(partial(task, *args, **kwargs))
        except ClusterError:
            raise  # Another worker may do it.
        except GeosegError as error:
            return TaskFailure(reason_of(error))
        finally:
            return_memory()

    return attempt


def _tried(task: Callable[[], Result]) -> Result:
    for _ in range(TRIES - 1):
        try:
            return task()
        except SceneAccessError as error:
            logger.warning("%s; trying again", reason_of(error))
    return task()


@_settled
def predict_task(job: SceneJob, index: int, plugin: str) -> BandLogits:
    """`predict_band` on a worker, with the worker's own model.

    A worker that dies takes results with it that are on disk already, and the scheduler
    asks for all that they were made of: what no part misses is not predicted again.
    """
    if all(find_part(job, part) is not None for part in uses(job, index)):
        return BandLogits(index, {}, np.empty(0, np.uint8), 0)
    return predict_band(job, index, worker_predictor(plugin))


@_settled
def blend_task(
    job: SceneJob, index: int, bands: Sequence[BandLogits | TaskFailure]
) -> PartRecord | TaskFailure:
    """`blend_band` on a worker, unless an earlier try has written the part."""
    found = find_part(job, index)
    if found is not None:
        return found
    logits = []
    for band in bands:
        if isinstance(band, TaskFailure):
            return band
        logits.append(band)
    return blend_band(job, index, logits)


@_settled
def finish_task(job: SceneJob) -> SceneResult:
    """`finish_scene` on a worker; parts tell their records, which may be thousands.

    On a scheduler of the user's, a task of a run that was killed may go on. The next
    run's waits for its end: each would delete what the other writes.

    Raises:
        SceneError: A part is not there, or outputs cannot be written.
    """
    with in_turn(finishing_lock(job)):
        return _finish(job)


def finishing_lock(job: SceneJob) -> Path:
    """Path of the lock on a scene's outputs, one for all settings."""
    return Path(job.work).with_name(finishing_name(job.scene_id))


def _finish(job: SceneJob) -> SceneResult:
    records = [find_part(job, band.index) for band in job.parts]
    found = [record for record in records if record is not None]
    if len(found) == len(records):
        try:
            return finish_scene(job, found)
        except GeosegError:
            # On a disk without locks the other task may be done first: it takes the
            # parts with it, and what it made is the same.
            made = read_result(Path(job.out), job.scene_id, job.key)
            if made is None:
                raise
            return made
    # The scheduler repeats a task whose worker was lost after the last rename; and the
    # run that was killed may have come to its end.
    result = read_result(Path(job.out), job.scene_id, job.key)
    if result is None:
        raise SceneError(
            f"{len(records) - len(found)} parts of {job.scene_id} are not in "
            f"{job.work}; put -o on a path that every worker sees, or run again"
        )
    return result


def uses(job: SceneJob, index: int) -> Iterator[int]:
    """Parts that need a band's logits, ascending."""
    below = job.bands[index].footprint.row_stop
    for part in islice(job.bands, index, None):
        if part.output.row >= below:
            return  # So are all that come after it.
        if part.finishes and index in part.needs:
            yield part.index


def reason_of(error: BaseException | TaskFailure) -> str:
    """Say on one line why a task failed."""
    if isinstance(error, TaskFailure):
        return error.reason
    if isinstance(error, GeosegError):
        return without_secrets(" ".join(str(error).split()))
    if isinstance(error, KilledWorker):
        return (
            f"its workers died {error.allowed_failures + 1} times in "
            f"{str(error.task).split('-')[0]}, probably out of memory; use fewer "
            "workers or a smaller batch"
        )
    return without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
