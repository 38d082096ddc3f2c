"""The job `geoseg vectorize`: a class raster of any origin in, polygons out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg import __version__
from geoseg.errors import (
    GeosegError,
    SceneError,
    UsageError,
)
from geoseg.finish import ClassSummary, vector_settings
from geoseg.generalizing import Generalization, generalize
from geoseg.grid import Window
from geoseg.io.atomic import work_folder
from geoseg.io.class_raster import (
    ClassRaster,
    ClassReader,
    check_same_grid,
    count_values,
    hidden_pixels,
    open_class_raster,
    strips,
)
from geoseg.io.class_table import read_class_table
from geoseg.io.vector import ClassTotal, write_segments
from geoseg.pipelines.vectorize_classes import (
    ClassChooser,
    Classes,
    Coding,
)
from geoseg.pipelines.vectorize_output import check_not_a_source, choose_output
from geoseg.reporting.notes import heard
from geoseg.vectorize import (
    PolygonBatch,
    trace_bands,
)
from geoseg.vectorize.native import library

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VectorizeConfig:
    """What is turned into polygons, and how."""

    raster: str
    """Class raster: a file, or whatever else GDAL opens."""
    out: Path | None = None
    """File of polygons; None: beside the raster, as a GeoPackage."""
    band: int | None = None
    """Band of the classes, 1-based; None: the only one."""
    nodata: int | None = None
    """Value of pixels without data; None: the file's own."""
    confidence: str | None = None
    """Raster of percents on the same grid."""
    classes: Path | None = None
    """Class table; None: what the raster says of itself."""
    exclude: tuple[str, ...] = ()
    """Ids or names of classes that get no polygons."""
    generalization: Generalization = field(default_factory=Generalization)
    """What is done to polygons once they are traced."""
    threads: int = 1
    """Threads that read and trace. The writer has one of its own and is slower."""
    overwrite: bool = False
    """Replace the output if it is there."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            UsageError: A number is too small.
        """
        if self.threads < 1:
            raise UsageError(f"{self.threads} threads trace nothing; use 1 or more")


@dataclass(frozen=True, slots=True)
class VectorizeResult:
    """What was written."""

    path: Path
    """The file of polygons."""
    classes: tuple[ClassSummary, ...]
    """What it holds; pixels are those of polygons."""
    seconds: float
    """How long it took."""


class Listener:
    """Told what a run does; the command line draws a progress bar from it."""

    def begun(self, what: str, rows: int) -> None:
        """A pass over the raster begins; it has so many rows."""

    def rows_done(self, rows: int) -> None:
        """So many more rows were read; called by any thread."""

    def note(self, message: str) -> None:
        """Something that changes results and that the user may want to know."""


class _UnknownValuesError(Exception):
    """The raster holds values of no known class; carries nothing."""


class _NoPercentError(Exception):
    """Pixels of a class have no confidence; carries nothing."""


def run(config: VectorizeConfig, listener: Listener | None = None) -> VectorizeResult:
    """Turn a class raster into polygons; the file appears when it is whole.

    Memory does not grow with the raster, but for the largest polygon; with `min_area`
    or `simplify` all polygons are in memory.

    Args:
        config: What to do.
        listener: Told of progress.

    Raises:
        UsageError: The call is wrong; nothing was written.
        SceneError: The raster cannot be used, or the output not be written.
    """
    started = time.perf_counter()
    listener = listener or Listener()
    out = choose_output(
        config.out,
        config.raster,
        {"confidence": config.confidence, "class table": config.classes},
        overwrite=config.overwrite,
    )
    job = _Job(config, out, listener)
    try:
        with heard(listener.note):
            totals = job.run()
    except GeosegError:
        raise
    except OSError as error:
        raise SceneError(
            f"{out} cannot be written: {error.strerror or error}; free some space or "
            "choose another -o"
        ) from error
    summaries = tuple(
        ClassSummary(
            info.id,
            info.name,
            totals[info.id].pixels,
            totals[info.id].polygons,
            totals[info.id].area_m2,
        )
        for info in job.classes.infos
    )
    return VectorizeResult(out, summaries, time.perf_counter() - started)


class _Job:
    """One raster on its way to polygons."""

    def __init__(self, config: VectorizeConfig, out: Path, listener: Listener) -> None:
        self.config, self.out, self.listener = config, out, listener
        rows = None if config.classes is None else read_class_table(config.classes)
        self.raster = open_class_raster(
            config.raster, band=config.band, nodata=config.nodata
        )
        self.confidence = self._open_confidence()
        for raster in filter(None, (self.raster, self.confidence)):
            check_not_a_source(out, raster)
        config.generalization.check(self.raster.grid)
        if self.raster.grid.crs is None:
            listener.note(
                f"{self.raster.path} has no CRS or no transform, so areas are unknown; "
                f"{self.raster.hint}"
            )
        self._chooser = ClassChooser(self.raster, config.classes, rows, config.exclude)
        self.classes = self._chooser.declared() or self._of_values()

    def run(self) -> dict[int, ClassTotal]:
        """Trace and write; return totals by class."""
        try:
            return self._write_known()
        except _NoPercentError:
            raise self._no_percent() from None

    def _write_known(self) -> dict[int, ClassTotal]:
        """Write; look for classes if the declared ones turn out not to be all."""
        try:
            return self._write()
        except _UnknownValuesError:
            self.classes = self._of_values()
        return self._write()

    def _of_values(self) -> Classes:
        return self._chooser.of_values(self._count())

    def _count(self) -> dict[int, int]:
        self.listener.begun("Looking for classes", self.raster.grid.height)
        return count_values(self.raster, self.listener.rows_done)

    def _no_percent(self) -> SceneError:
        """Count the pixels of classes without confidence, and say so."""
        assert self.confidence is not None
        coding, missing = Coding(self.raster, self.classes), 0
        self.listener.begun("Looking for confidence", self.raster.grid.height)
        with ClassReader(self.raster) as raster, ClassReader(self.confidence) as other:
            for window in strips(self.raster):
                seen = coding.visible(coding.encode(*raster.read(window)))
                hidden = hidden_pixels(self.confidence, *other.read(window))
                missing += int((hidden & seen).sum())
                self.listener.rows_done(window.height)
        return SceneError(
            f"the confidence {self.confidence.path} is nodata for {missing:,} pixels "
            "of classes, so the mean of their polygons is unknown; fill it, for "
            "example with gdal_fillnodata, or leave --confidence out"
        )

    def _open_confidence(self) -> ClassRaster | None:
        if self.config.confidence is None:
            return None
        raster = open_class_raster(self.config.confidence, percents=True)
        check_same_grid(self.raster, raster)
        return raster

    def _write(self) -> dict[int, ClassTotal]:
        raster, config = self.raster, self.config
        coding = Coding(raster, self.classes)
        self.listener.begun("Vectorizing", raster.grid.height)
        # With it comes torch, which aborts where an interrupt reaches it while it is
        # imported: before there is a file to remove.
        library()
        with (
            # Beside the output: memory disks are small, and this one must have room.
            work_folder(self.out) as folder,
            _Readers(raster, self.confidence, coding, self.listener) as readers,
            closing(
                trace_bands(
                    readers.read,
                    raster.grid.whole,
                    height=raster.rows,
                    transform=raster.grid.transform,
                    spill=folder,
                    threads=config.threads,
                    nodata=coding.hidden,
                    classes=coding.classes,
                )
            ) as traced,
        ):
            known = _known(traced, coding.unknown)
            return write_segments(
                self.out,
                generalize(known, config.generalization, raster.grid, folder),
                grid=raster.grid,
                classes=self.classes.infos,
                scene_id=raster.tags.get("scene_id") or Path(raster.path).stem,
                provenance=self._provenance(),
                with_confidence=self.confidence is not None,
                work=folder,
            )

    def _provenance(self) -> dict[str, str]:
        raster, config = self.raster, self.config
        kept = ("model", "model_sha256")
        return {
            "software": f"geoseg {__version__}",
            **{key: raster.tags[key] for key in kept if key in raster.tags},
            "source": Path(raster.path).name,
            **({} if config.classes is None else {"classes": config.classes.name}),
            **vector_settings(config.generalization, config.exclude),
        }


class _Readers:
    """Reads bands of a raster and its confidence; each thread has files of its own."""

    def __init__(
        self,
        raster: ClassRaster,
        confidence: ClassRaster | None,
        coding: Coding,
        listener: Listener,
    ) -> None:
        self._rasters = [raster] if confidence is None else [raster, confidence]
        self._coding, self._listener = coding, listener
        self._own = threading.local()
        self._lock = threading.Lock()
        self._opened = ExitStack()

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def read(self, window: Window) -> tuple[Bytes, Bytes | None]:
        """Return class and percent of each pixel, as `trace_bands` takes them."""
        if not hasattr(self._own, "readers"):
            with self._lock:
                self._own.readers = [
                    self._opened.enter_context(ClassReader(raster))
                    for raster in self._rasters
                ]
        values, shown = self._own.readers[0].read(window)
        encoded = self._coding.encode(values, shown)
        percents = None
        if len(self._rasters) > 1:
            percents, known = self._own.readers[1].read(window)
            self._check(percents, known, encoded)
        self._listener.rows_done(window.height)
        return encoded, percents

    def _check(
        self, percents: Bytes, known: npt.NDArray[np.bool_] | None, encoded: Bytes
    ) -> None:
        # The tracer sums a byte of all pixels of a polygon: none can be left out.
        hidden = hidden_pixels(self._rasters[1], percents, known)
        if self._has_polygons(hidden, encoded):
            raise _NoPercentError
        if self._has_polygons(percents > 100, encoded):
            raise SceneError(
                f"the confidence {self._rasters[1].path} has values above 100 where "
                "there are classes; give percents, 0 to 100"
            )

    def _has_polygons(self, pixels: npt.NDArray[np.bool_], encoded: Bytes) -> bool:
        """Tell whether any of some pixels gets a polygon."""
        return bool(pixels.any() and (pixels & self._coding.visible(encoded)).any())


def _known(batches: Iterable[PolygonBatch], unknown: int) -> Iterator[PolygonBatch]:
    """Pass polygons on, unless one is of a value that is no known class."""
    for batch in batches:
        if (batch.class_id == unknown).any():
            raise _UnknownValuesError
        yield batch
