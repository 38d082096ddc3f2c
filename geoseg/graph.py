"""The tasks of one scene: predict a band, blend a band, finish the scene.

The same functions run on a cluster (`geoseg.stream`) and, in a plain loop, without one
(`run_scene`). What travels between tasks is the small `SceneJob`, a band's logits at
the model's own stride, and records; pixels and full-resolution logits never do.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from geoseg._heap import peak_memory
from geoseg.blending import blend_classes
from geoseg.counting import class_pixels
from geoseg.errors import BlendingError
from geoseg.generalizing import Generalization
from geoseg.grid import Window
from geoseg.identity import check_unchanged
from geoseg.io.ahead import PixelsAhead, kept_reader
from geoseg.io.atomic import atomic_path
from geoseg.io.passing import access_error
from geoseg.io.raster import Scene
from geoseg.io.scratch import write_scratch
from geoseg.layout import CLASSES, CONFIDENCE, SCORES
from geoseg.scoring import blend_with_scores
from geoseg.tiling import Band, TileGrid
from geoseg.types import BlendSpace, BlendWindow, ClassInfo, Codec, StacSource
from geoseg.vectorize import trace_part

if TYPE_CHECKING:
    from geoseg.inference import TileInput

logger = logging.getLogger(__name__)

LogitsArray = npt.NDArray[np.float16]

AREA = "area.wkb"
"""File in the work folder that holds the scene's area of interest."""


class TilePredictor(Protocol):
    """Whatever turns tiles into logits; `geoseg.inference.Predictor` in production."""

    def predict(
        self, tiles: Iterator[TileInput], scale: float
    ) -> Iterator[npt.NDArray[np.float16]]:
        """Yield (K, h, w) logits of each tile, in order."""
        ...


@dataclass(frozen=True)
class SceneJob:
    """Everything that the tasks of one scene need to know; plain values."""

    scene: Scene
    """What to read."""
    scene_id: str
    """Identity in the run and in STAC."""
    grid: TileGrid
    """Where its tiles lie."""
    classes: tuple[ClassInfo, ...]
    """Class table in the order of the logits."""
    work: str
    """Folder of the parts; its name holds the key, so parts are found again by key."""
    out: str
    """Folder of the finished outputs."""
    key: str
    """Hash of input, weights and settings that change pixels (contract C9)."""
    state: str
    """What the input's files were when the run was planned; see `input_state`."""
    window: BlendWindow = "hann"
    """Weight of a pixel within its tile."""
    space: BlendSpace = "logits"
    """What overlapping tiles average."""
    confidence: bool = True
    """Write the confidence raster."""
    polygons: bool = True
    """Trace and write polygons."""
    scores: bool = False
    """Write the raster of all classes' scores."""
    codec: Codec = "zstd"
    """Compression of the rasters."""
    excluded: Set[int] = frozenset()
    """Classes that get no polygons."""
    generalization: Generalization = field(default_factory=Generalization)
    """What is done to polygons once they are traced."""
    provenance: tuple[tuple[str, str], ...] = ()
    """Tags for the outputs."""
    collection: str = "run"
    """Id of the run's STAC collection."""
    item: StacSource | None = None
    """The STAC item that the scene was given as."""
    stored_area: bool = False
    """The area of interest lies in the work folder; see `store_area`."""

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """Bands of the scene, derived from the grid wherever they are needed."""
        return self.grid.bands(whole_rows=self.scene.by_rows)

    @cached_property
    def parts(self) -> tuple[Band, ...]:
        """Bands that finish pixels; in a region some have only overlap to give."""
        return tuple(band for band in self.bands if band.finishes)

    def __getstate__(self) -> dict[str, Any]:
        """Leave derived values behind: a task carries the job, not its bands."""
        cached = ("bands", "parts")
        return {k: v for k, v in self.__dict__.items() if k not in cached}


@dataclass(frozen=True, slots=True)
class BandLogits:
    """What predicting one band gives; lives in the memory of a worker."""

    index: int
    """Index of the band."""
    tiles: Mapping[tuple[int, int], LogitsArray]
    """Logits (K, h, w) of tile (i, j); tiles without data are left out."""
    keep: npt.NDArray[np.uint8]
    """Pixels of the footprint that hold data and are wanted, bit-packed."""
    skipped: int
    """Tiles without data."""
    memory: int = field(default=0, compare=False)
    """Most memory of the process that predicted it, bytes."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What the client learns of one finished part."""

    index: int
    """Index of the band."""
    pixels: dict[int, int]
    """Pixels by class id; nodata is not counted."""
    tiles: int
    """Tiles of the band, and of bands that finish nothing and lend it theirs first."""
    skipped: int
    """Those of them without data."""
    memory: int = field(default=0, compare=False)
    """Most memory of a process that worked on it, bytes, by the end of its work."""


def store_area(job: SceneJob) -> SceneJob:
    """Put the area of interest into the work folder, and leave it out of the job.

    A coastline has megabytes, and a job travels with each of its tasks.
    """
    if job.scene.aoi is None:
        return job
    with atomic_path(Path(job.work) / AREA) as path:
        path.write_bytes(job.scene.aoi)
    return replace(job, scene=replace(job.scene, aoi=None), stored_area=True)


def predict_band(job: SceneJob, index: int, predictor: TilePredictor) -> BandLogits:
    """Read a band's pixels once and predict its tiles, those without data apart.

    Raises:
        SceneError: The scene cannot be read there, or is not what was planned with.
    """
    band = job.bands[index]
    with kept_reader(_scene_with_area(job), job.state) as reader:
        check_unchanged(job.scene.path, job.state)
        with PixelsAhead(reader, band.footprint, job.grid.tile_size) as pixels:
            wanted: list[tuple[int, int]] = []
            inputs = _inputs(job, band, pixels, wanted)
            logits = list(predictor.predict(inputs, job.scene.scale))
            keep = np.packbits(pixels.get(band.footprint).keep)
    tiles = dict(zip(wanted, logits, strict=True))
    skipped = len(band) - len(wanted)
    return BandLogits(index, tiles, keep, skipped, peak_memory())


def blend_band(job: SceneJob, index: int, bands: Sequence[BandLogits]) -> PartRecord:
    """Blend the pixels that a band finishes, trace them, and write the part.

    Args:
        job: The scene.
        index: Index of the band.
        bands: Logits of all bands that the band needs.

    Raises:
        BlendingError: A model's logits are not finite, or not one a class; names the
            scene and the tile.
        SceneError: The disk is full, or the part cannot be written.
    """
    band = job.bands[index]
    own = next(logits for logits in bands if logits.index == index)
    keep = _unpack(own.keep, band.footprint)
    keep = keep[band.output.relative_to(band.footprint).slices]
    tiles = {place: t for logits in bands for place, t in logits.tiles.items()}
    try:
        mask, confidence = _blend(job, band, tiles, keep)
    except BlendingError as error:
        raise BlendingError(f"scene {job.scene_id}: {error}") from error
    counted = _counted_with(job, band)
    record = PartRecord(
        index=index,
        pixels=class_pixels(mask, job.classes),
        tiles=sum(len(job.bands[number]) for number in counted),
        skipped=sum(logits.skipped for logits in bands if logits.index in counted),
        memory=max(peak_memory(), *(logits.memory for logits in bands)),
    )
    try:
        _write_part(job, band, mask, confidence, record)
    except OSError as error:
        raise access_error(
            f"parts of {job.scene_id} cannot be written to {job.work}: "
            f"{error.strerror or error}; free some space or choose another -o",
            error,
        ) from error
    return record


def find_part(job: SceneJob, index: int) -> PartRecord | None:
    """Record of a part that an earlier run wrote under the same key, or None."""
    try:
        values = json.loads(part_path(job, index, "json").read_text())
        if values.pop("checksums") != _checksums(job, index):
            return None
        values["pixels"] = {int(k): v for k, v in values["pixels"].items()}
        return PartRecord(**values)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def part_path(job: SceneJob, index: int, suffix: str) -> Path:
    """Path of a part's file: a raster, `polygons.part` or `json` (written last)."""
    return Path(job.work) / f"part-{index:06d}.{suffix}"


def raster_names(job: SceneJob) -> list[str]:
    """Names of the scene's rasters, and suffixes of its parts'."""
    wanted = {CLASSES: True, CONFIDENCE: job.confidence, SCORES: job.scores}
    return [name for name, write in wanted.items() if write]


def _checksums(job: SceneJob, index: int) -> dict[str, int]:
    """CRC of a part's files: a damaged part is made again, or no run would get by."""
    names = raster_names(job) + (["polygons.part"] if job.polygons else [])
    return {name: _checksum(part_path(job, index, name)) for name in names}


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def run_scene(job: SceneJob, predictor: TilePredictor) -> list[PartRecord]:
    """Predict and blend all bands of a scene in a plain loop, without a cluster."""
    ready: dict[int, BandLogits] = {}
    records = []
    last_use = last_uses(job)
    for band in job.bands:
        ready[band.index] = predict_band(job, band.index, predictor)
        if band.finishes:
            needed = [ready[need] for need in band.needs]
            records.append(blend_band(job, band.index, needed))
        for index in [i for i in ready if last_use[i] <= band.index]:
            del ready[index]
    return records


def last_uses(job: SceneJob) -> dict[int, int]:
    """For each band the last part that needs its logits; -1 if none does."""
    last = dict.fromkeys(range(len(job.bands)), -1)
    for part in job.parts:
        for need in part.needs:
            last[need] = max(last[need], part.index)
    return last


def discard_parts(work: str) -> None:
    """Delete a scene's work folder: it is whole, or starts anew."""
    shutil.rmtree(work, ignore_errors=True)


def _scene_with_area(job: SceneJob) -> Scene:
    if not job.stored_area:
        return job.scene
    path = Path(job.work) / AREA
    try:
        return replace(job.scene, aoi=path.read_bytes())
    except OSError as error:
        raise access_error(
            f"the area of interest of {job.scene_id} cannot be read from {path} "
            f"({error.strerror}); put -o on a path that every worker sees",
            error,
        ) from error


def _counted_with(job: SceneJob, band: Band) -> set[int]:
    """Bands that a part reports: its own, and those only lent that it is first to need.

    Above a region, bands finish no pixel; yet each tile is to be counted once.
    """
    lent = {need for need in band.needs if not job.bands[need].finishes}
    if lent:
        lent.difference_update(
            *(b.needs for b in job.bands[: band.index] if b.finishes)
        )
    return {band.index} | lent


def _inputs(
    job: SceneJob, band: Band, pixels: PixelsAhead, wanted: list[tuple[int, int]]
) -> Iterator[TileInput]:
    """Yield the tiles of a band that hold data, and name them in `wanted`."""
    # Not above: the scheduler imports this module, and needs no torch.
    from geoseg.inference import TileInput

    for place in band.tiles:
        inside = job.grid.tile(*place).intersection(band.footprint)
        assert inside is not None, "a tile lies in its band's footprint"
        tile = pixels.get(inside)
        if tile.keep.any():
            wanted.append(place)
            yield TileInput(tile.values, tile.valid)


def _unpack(bits: npt.NDArray[np.uint8], window: Window) -> npt.NDArray[np.bool_]:
    count = window.height * window.width
    flat = np.unpackbits(bits, count=count).view(np.bool_)
    return flat.reshape(window.height, window.width)


def _blend(
    job: SceneJob,
    band: Band,
    tiles: Mapping[tuple[int, int], LogitsArray],
    keep: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Class mask and confidence of a part; writes its scores, if they are wanted."""
    blend = partial(
        blend_classes,
        tiles,
        job.grid,
        ids=np.array([entry.id for entry in job.classes], np.uint8),
        window=job.window,
        space=job.space,
        # Of each polygon its mean is told.
        confidence=job.confidence or job.polygons,
    )
    if not job.scores:
        return blend(band.output, keep=keep)
    with atomic_path(part_path(job, band.index, SCORES)) as path:
        return blend_with_scores(blend, band.output, keep, len(job.classes), path)


def _write_part(
    job: SceneJob,
    band: Band,
    mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8] | None,
    record: PartRecord,
) -> None:
    started = time.perf_counter()
    rasters = {CLASSES: mask}
    if confidence is not None and job.confidence:
        rasters[CONFIDENCE] = confidence
    for name, pixels in rasters.items():
        with atomic_path(part_path(job, band.index, name)) as path:
            write_scratch(path, pixels, packed=name == CLASSES)
    if job.polygons:
        traced = trace_part(
            mask,
            confidence,
            band.output,
            region=job.grid.output,
            transform=job.scene.grid.transform,
            excluded=job.excluded,
        )
        with atomic_path(part_path(job, band.index, "polygons.part")) as path:
            traced.save(path)
    # The record comes last: a part without one was cut short and is made again.
    with atomic_path(part_path(job, band.index, "json")) as path:
        checksums = _checksums(job, band.index)
        path.write_text(json.dumps({**asdict(record), "checksums": checksums}))
    logger.debug("part %d written in %.2f s", band.index, time.perf_counter() - started)
