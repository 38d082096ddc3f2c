"""How a planned run goes: scenes streamed through a cluster, outcomes taken down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
    from geoseg.pipelines.segment import Listener


class FirstFailure(Exception):
    """A scene failed, and the run is to end then."""


class Ledger:
    """What became of scenes so far; tells the listener."""

    def __init__(self, listener: Listener, on_error: OnError) -> None:
        self.results: list[SceneResult] = []
        self.failures: list[SceneFailure] = []
        self._listener, self._on_error = listener, on_error

    def enter(self, outcome: SceneResult | SceneFailure) -> None:
        """Take down an outcome of this run.

        Raises:
            FirstFailure: It is the one that ends the run.
        """
        self._listener.scene_done(outcome)
        if isinstance(outcome, SceneResult):
            self.results.append(outcome)
            return
        self.failures.append(outcome)
        if self._on_error == "fail":
            raise FirstFailure

    def left(
        self, planned: Iterable[SceneJob | SceneResult | SceneFailure]
    ) -> Iterator[SceneJob]:
        """Take down what needs no work, and pass on what does."""
        for item in planned:
            if isinstance(item, SceneJob):
                yield item
            elif isinstance(item, SceneResult):
                self.results.append(item)
                self._listener.kept(item.scene_id)
            else:
                self.enter(item)


def outcomes(
    cluster: ClusterConfig,
    model: PredictorConfig,
    jobs: Iterator[SceneJob],
    listener: Listener,
) -> Iterator[SceneResult | SceneFailure]:
    """Run jobs on a cluster; without any, none is started."""
    first, parts = list[SceneJob](), 0
    # As many as tell that all workers will have something to do.
    for job in jobs:
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
            chain(first, jobs),
            listener.tiles_done,
            stop=stop,
            stopping=listener.stopping,
            timeout=cluster.timeout,
        )
