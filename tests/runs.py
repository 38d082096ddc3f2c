"""Runs of `segment` without a cluster, which can be stopped after any part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rasters import write_raster
from running import configuration, smooth_image
from stubs import save_stub

from geoseg.clusters.config import ClusterConfig
from geoseg.finish import SceneResult, finish_scene
from geoseg.graph import BandLogits, SceneJob, blend_band, find_part, predict_band
from geoseg.inference import Predictor, PredictorConfig
from geoseg.pipelines import segment, segment_run
from geoseg.pipelines.segment import Listener, RunReport
from geoseg.stream import SceneFailure

TALL = 64 + 48 * 15
"""Rows of a scene of three parts, if it is two tiles wide."""


@dataclass
class PlainRuns:
    """Scenes of a folder, run in plain loops in place of a cluster."""

    folder: Path
    """Holds archive, model and out."""
    parts: int = 0
    """Parts that were made so far."""
    stop_after: int | None = None
    """Parts after which the run is stopped."""
    stop_by: BaseException | None = None
    """What stops it."""

    @property
    def out(self) -> Path:
        """The run directory."""
        return self.folder / "out"

    def scene(self, name: str, *, height: int = 60, seed: int = 0) -> Path:
        """Write a scene, two tiles wide if it is tall, else of one tile."""
        path = self.folder / "archive" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        width = 100 if height > 64 else 60
        return write_raster(path, smooth_image(height, width, seed=seed))

    def run(self, *scenes: Path, listener: Listener | None = None) -> RunReport:
        """Run scenes, or the whole archive."""
        given = list(scenes) or [self.folder / "archive"]
        config = configuration(given, self.out, self.folder / "model")
        return segment.run(config, listener)

    def outcomes(
        self,
        cluster: ClusterConfig,
        model: PredictorConfig,
        jobs: Iterator[SceneJob | None],
        listener: Listener,
    ) -> Iterator[SceneResult | SceneFailure]:
        """Stand for `geoseg.pipelines.segment_run._outcomes`."""
        predictor = None
        for job in filter(None, jobs):
            predictor = predictor or Predictor.load(model)
            yield self._scene(job, predictor, listener)

    def _scene(
        self, job: SceneJob, predictor: Predictor, listener: Listener
    ) -> SceneResult:
        records = {band.index: find_part(job, band.index) for band in job.parts}
        found = [len(job.bands[i]) for i, record in records.items() if record]
        listener.tiles_done(job.scene_id, sum(found))
        ready: dict[int, BandLogits] = {}
        for band in job.bands:
            ready[band.index] = predict_band(job, band.index, predictor)
            if records[band.index] is None:
                needed = [ready[need] for need in band.needs]
                records[band.index] = blend_band(job, band.index, needed)
                self.parts += 1
                listener.tiles_done(job.scene_id, len(band))
                if self.parts == self.stop_after:
                    assert self.stop_by is not None
                    raise self.stop_by
        return finish_scene(job, [r for r in records.values() if r is not None])


def plain_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PlainRuns:
    """Put plain loops in place of the cluster, and save a model."""
    runs = PlainRuns(folder)
    save_stub(folder / "model", kind="levels", output_stride=4)
    monkeypatch.setattr(segment_run, "_outcomes", runs.outcomes)
    return runs
