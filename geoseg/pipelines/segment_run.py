"""How a planned run goes: scenes streamed through a cluster, outcomes taken down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from dask.system import CPU_COUNT

from geoseg.cluster import connect, plugin_name
from geoseg.clusters.config import ClusterConfig
from geoseg.finish import SceneResult
from geoseg.graph import SceneJob
from geoseg.inference import PredictorConfig
from geoseg.stopping import stoppable
from geoseg.stream import SceneFailure, SceneStream
from geoseg.types import OnError

if TYPE_CHECKING:
    from geoseg.discovery import SceneFile
    from geoseg.pipelines.segment_plan import Plan
    from geoseg.pipelines.segment_report import Listener, RunLog


class _FirstFailure(Exception):
    """A scene failed, and the run is to end then."""


def run_plan(plan: Plan, files: Sequence[SceneFile], log: RunLog) -> None:
    """Run what is left to do, and let the log know of all.

    Raises:
        ClusterError: There is no cluster to run on, or it was lost.
    """
    config = plan.config
    log.found(len(files))
    with closing(plan.scenes(files)) as planned:
        jobs = _left(planned, log, config.output.on_error)
        try:
            for outcome in _outcomes(config.cluster, plan.model, jobs, log):
                _enter(outcome, log, config.output.on_error)
        except _FirstFailure:
            pass  # The report tells of it.


def _left(
    planned: Iterable[SceneJob | SceneResult | SceneFailure | None],
    log: RunLog,
    on_error: OnError,
) -> Iterator[SceneJob | None]:
    """Take down what needs no work, and pass on what does; None in place of others."""
    for item in planned:
        if isinstance(item, SceneJob):
            log.ready(item)
            yield item
            continue
        if isinstance(item, SceneResult):
            log.reused(item)
        elif item is not None:
            _enter(item, log, on_error)
        yield None


def _enter(outcome: SceneResult | SceneFailure, log: RunLog, on_error: OnError) -> None:
    log.scene_done(outcome)
    if isinstance(outcome, SceneFailure) and on_error == "fail":
        raise _FirstFailure


def _outcomes(
    cluster: ClusterConfig,
    model: PredictorConfig,
    jobs: Iterator[SceneJob | None],
    listener: Listener,
) -> Iterator[SceneResult | SceneFailure]:
    """Run jobs on a cluster; without any, none is started."""
    first, parts = list[SceneJob](), 0
    # As many as tell that all workers will have something to do.
    for job in jobs:
        if job is None:
            continue
        first.append(job)
        parts += len(job.parts)
        if parts >= (cluster.workers or CPU_COUNT):
            break
    if not first:
        return
    with connect(cluster, model, parts) as client, stoppable() as stop:
        yield from SceneStream(
            client,
            plugin_name(model),
            chain[SceneJob | None](first, jobs),
            listener.tiles_done,
            stop=stop,
            stopping=listener.stopping,
            timeout=cluster.timeout,
        )
