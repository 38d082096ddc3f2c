"""What a run of `segment` tells: who listens to it, and its report."""

from __future__ import annotations

import itertools
import logging
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import pyogrio
import rasterio

from geoseg import __version__
from geoseg._heap import peak_memory
from geoseg.archive import RunDirectory
from geoseg.discovery import SceneFile
from geoseg.errors import FileOutputError, GeosegError, OutputError
from geoseg.finish import SceneResult
from geoseg.graph import SceneJob
from geoseg.io.catalog import write_collection, write_model
from geoseg.io.location import shown
from geoseg.io.raster import Scene
from geoseg.layout import CLASSES, COLLECTION, MODEL, PAGE, REPORT
from geoseg.models.registry import architecture, weight_files
from geoseg.preview.thumbnail import thumbnail
from geoseg.reporting.items import read_items
from geoseg.reporting.page import page_pieces
from geoseg.reporting.record import (
    ClassAmount,
    RunRecord,
    RunState,
    SceneRecord,
    report_lines,
)
from geoseg.stream import SceneFailure
from geoseg.types import ModelSpec

logger = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
"""Time between two versions of the report, at least."""

RENEW_SHARE = 100
"""That time is also this many times what writing takes: of 10,000 scenes, half a
second."""

PICTURES, PICTURE_SIDE = 60, 128
"""Scenes that have a picture in the page, and the pictures' side, pixels."""

ENDED_EARLY = "the run ended before it was finished; run it again"


@dataclass(frozen=True, slots=True)
class RunReport:
    """What became of every scene."""

    out: Path
    """Run directory."""
    results: tuple[SceneResult, ...]
    """Finished scenes, those that were whole before included."""
    failures: tuple[SceneFailure, ...]
    """Scenes that failed, and why."""
    record: RunRecord | None = field(default=None, compare=False)
    """The same with times and memory, as `report.json` has it."""

    @property
    def ok(self) -> bool:
        """Whether every scene is whole (contract C10)."""
        return not self.failures


class Listener:
    """Told what a run does; the command line draws a progress bar from it."""

    def found(self, scenes: int) -> None:
        """The archive has this many scenes; they are opened as their turn comes."""

    def kept(self, scene_id: str) -> None:
        """A scene is whole already, and stays as it is."""

    def planned(self, scene_id: str, scene: Scene, tiles: int) -> None:
        """A scene was opened; `scene.grid` is what it is processed on."""

    def tiles_done(self, scene_id: str, tiles: int) -> None:
        """Tiles of a scene were predicted, or found done."""

    def scene_done(self, outcome: SceneResult | SceneFailure) -> None:
        """A scene was finished or failed."""

    def stopping(self, parts: int) -> None:
        """The run was asked to stop, and finishes the parts in hand."""

    def note(self, message: str) -> None:
        """Something that changes results and that the user may want to know."""


class RunLog(Listener):
    """Keeps the report of a run, in a `with` block for as long as the run lasts.

    `report.json` is there from the start, renewed while the run goes on, and whole
    after it, however it ended.

    Args:
        directory: Where the report goes; locked by the caller.
        files: Scenes in the order given.
        root: What their ids are relative to.
        spec: The model.
        folder: Its folder.
        listener: Told of everything, too.
    """

    def __init__(
        self,
        directory: RunDirectory,
        files: Sequence[SceneFile],
        root: object,
        spec: ModelSpec,
        folder: Path,
        listener: Listener,
    ) -> None:
        self._directory, self._listener = directory, listener
        self._spec, self._folder = spec, folder
        self._results: dict[str, SceneResult] = {}
        self._failures: dict[str, SceneFailure] = {}
        self._begun: dict[str, float] = {}
        self._started = self._next = 0.0
        self._scenes = {
            f.scene_id: SceneRecord(f.scene_id, shown(str(f.path))) for f in files
        }
        self._record = RunRecord(
            root=str(root),
            model={
                "name": spec.name,
                "sha256": spec.weights_sha256,
                "classes": [asdict(info) for info in spec.classes],
            },
            versions=versions(),
            scenes=list(self._scenes.values()),
        )

    def __enter__(self) -> Self:
        """Write a report of scenes that all wait.

        Raises:
            OutputError: It cannot be written.
        """
        self._started = monotonic()
        self._record.started = _now()
        self._write()
        self._write_page()  # Or that of an earlier call would be taken for this one's.
        with self._directory.writing(MODEL) as path:
            write_model(
                path,
                self._spec,
                architecture=architecture(self._folder),
                weights=weight_files(self._folder),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the report, also of a run that lost its cluster or was interrupted.

        Raises:
            FileOutputError: It cannot be written although all scenes are whole. What
                else went wrong is worth more than that.
        """
        self._close(error)
        try:
            self._write()
            self._write_collection()
            self._write_page()
        except OutputError as failure:
            if self._record.state == "done":
                raise FileOutputError(str(failure)) from failure
            self._listener.note(str(failure))

    def found(self, scenes: int) -> None:
        """Hand on the number of scenes."""
        self._listener.found(scenes)

    def planned(self, scene_id: str, scene: Scene, tiles: int) -> None:
        """Keep how many tiles a scene has."""
        self._scenes[scene_id].tiles = tiles
        self._listener.planned(scene_id, scene, tiles)

    def ready(self, job: SceneJob) -> None:
        """Keep what a scene is made of, on disk too: the report is seldom renewed."""
        scene = self._scenes[job.scene_id]
        scene.key, scene.parts = job.key, len(job.parts)
        plan = {"tiles": scene.tiles, "parts": scene.parts}
        try:
            self._directory.record_plan(job.scene_id, job.key, plan)
        except GeosegError:  # Its parts will say so, if nothing can be written.
            logger.warning("the plan of %s is not kept", job.scene_id, exc_info=True)
        self._renew()

    def reused(self, result: SceneResult) -> None:
        """Keep what an earlier call made."""
        self._fill(result)
        self._scenes[result.scene_id].state = "reused"
        self._listener.kept(result.scene_id)
        self._renew()

    def tiles_done(self, scene_id: str, tiles: int) -> None:
        """Count tiles; the first report of a scene tells what was found."""
        scene = self._scenes[scene_id]
        if tiles < 0:  # It is begun again, later.
            self._begun.pop(scene_id, None)
            scene.state, scene.tiles_done, scene.tiles_found = "waiting", 0, 0
            self._listener.tiles_done(scene_id, tiles)
            return
        if scene_id not in self._begun:
            self._begun[scene_id] = monotonic()
            scene.started = _now()
            scene.tiles_found = tiles
            if self._record.work_started is None:
                self._record.work_started = scene.started
                self._next = 0.0
        scene.state = "running"
        scene.tiles_done += tiles
        self._listener.tiles_done(scene_id, tiles)
        self._renew()

    def scene_done(self, outcome: SceneResult | SceneFailure) -> None:
        """Keep how a scene ended."""
        if isinstance(outcome, SceneResult):
            self._fill(outcome)
        else:
            self._failures[outcome.scene_id] = outcome
            scene = self._scenes[outcome.scene_id]
            scene.state, scene.reason = "failed", outcome.reason
        self._end(self._scenes[outcome.scene_id])
        self._listener.scene_done(outcome)
        self._renew()

    def stopping(self, parts: int) -> None:
        """Hand on that the run was asked to stop."""
        self._listener.stopping(parts)

    def note(self, message: str) -> None:
        """Hand on a note."""
        self._listener.note(message)

    def report(self) -> RunReport:
        """Outcomes in the order of the scenes; those without one failed, too."""
        return RunReport(
            self._directory.path,
            tuple(self._results[i] for i in self._scenes if i in self._results),
            tuple(
                self._failures.get(scene_id) or SceneFailure(scene_id, ENDED_EARLY)
                for scene_id in self._scenes
                if scene_id not in self._results
            ),
            self._record,
        )

    def _fill(self, result: SceneResult) -> None:
        self._results[result.scene_id] = result
        scene = self._scenes[result.scene_id]
        scene.state, scene.key = "done", result.key
        scene.peak_memory = result.memory
        scene.tiles = scene.tiles_done = result.tiles
        scene.tiles_skipped = result.skipped
        scene.classes = tuple(ClassAmount(**asdict(entry)) for entry in result.classes)

    def _end(self, scene: SceneRecord) -> None:
        scene.ended = _now()
        begun = self._begun.get(scene.scene_id)
        if begun is not None:
            scene.seconds = round(monotonic() - begun, 3)

    def _close(self, error: BaseException | None) -> None:
        for scene in self._record.scenes:
            if scene.state in ("waiting", "running"):
                scene.state, scene.reason = "unfinished", ENDED_EARLY
        record = self._record
        record.state = self._state(error)
        if error is not None and record.state == "failed":
            record.reason = " ".join(str(error).split()) or type(error).__name__
        record.ended = _now()
        record.seconds = round(monotonic() - self._started, 3)

    def _state(self, error: BaseException | None) -> RunState:
        if error is None:
            return "done" if len(self._results) == len(self._scenes) else "failed"
        return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"

    def _write_collection(self) -> None:
        """Write the collection of all whole scenes, those of earlier runs too."""
        out = self._directory.path
        with self._directory.writing(COLLECTION) as path:
            write_collection(
                path,
                collection_id=self._directory.collection_id(),
                classes=self._spec.classes,
                items=read_items(out),
            )

    def _write_page(self) -> None:
        """Write the page, with pictures of the first scenes that are whole."""
        out = self._directory.path
        pictures = {}
        for scene_id in itertools.islice(self._results, PICTURES):
            try:
                mask = out / scene_id / CLASSES
                pictures[scene_id] = thumbnail(mask, self._spec.classes, PICTURE_SIDE)
            except (GeosegError, OSError):
                logger.debug("%s gets no picture", scene_id, exc_info=True)
        title = out.resolve().name
        self._directory.write(PAGE, page_pieces(self._record, title, pictures))

    def _renew(self) -> None:
        """Write the report again if that was not done for a while."""
        if monotonic() < self._next:
            return
        try:
            self._write()
        except GeosegError:  # The run is worth more than news of it.
            logger.warning("the report is not renewed", exc_info=True)

    def _write(self) -> None:
        begun = monotonic()
        record = self._record
        record.renewed = _now()
        record.peak_memory = {
            "client": peak_memory(),
            "worker": _largest(scene.peak_memory for scene in record.scenes),
        }
        try:
            self._directory.write(REPORT, report_lines(record))
        finally:
            took = monotonic() - begun
            self._next = monotonic() + max(RENEW_SECONDS, RENEW_SHARE * took)


def versions() -> dict[str, str]:
    """Return the versions of what results may depend on, here in the client."""
    libraries = ("torch", "transformers", "numpy", "dask", "distributed")
    return {
        "geoseg": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
        # Each wheel carries a GDAL: one for rasters, another for vectors.
        "gdal (rasters)": str(rasterio.__gdal_version__),
        "gdal (vectors)": str(pyogrio.__gdal_version_string__),
    }


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
