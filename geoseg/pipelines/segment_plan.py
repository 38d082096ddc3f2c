"""What `geoseg segment` has to do: every scene opened and keyed, no pixel read."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import warnings
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from geoseg import __version__
from geoseg.archive import RunDirectory, scene_key
from geoseg.discovery import SceneFile
from geoseg.errors import (
    GeosegError,
    GeosegWarning,
    SceneError,
    UnlocatedWarning,
    UsageError,
)
from geoseg.finish import SceneResult
from geoseg.graph import SceneJob, store_area
from geoseg.identity import input_content, input_state
from geoseg.inference import PredictorConfig
from geoseg.io.location import is_remote, is_virtual, shown, tree_parts
from geoseg.io.raster import Scene, open_scene
from geoseg.io.vsi import fetch_start
from geoseg.ops import LIBRARY
from geoseg.pipelines.segment_remote import looked_at, one_line
from geoseg.pipelines.vectorize_classes import excluded_ids
from geoseg.stream import SceneFailure
from geoseg.tiling import TileGrid, count_tiles
from geoseg.types import ModelSpec

if TYPE_CHECKING:
    from geoseg.pipelines.segment import SegmentConfig
    from geoseg.pipelines.segment_report import Listener

logger = logging.getLogger(__name__)

MOST_TILES = 5_000_000
"""Tiles of a scene, a square of over a million pixels: more is a mistake or hostile."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What tells a scene from another one of its name."""

    state: str
    """See `input_state`."""
    known_by: str
    """The same, or `input_content` where that is asked for."""


class Plan:
    """Opens scenes and decides what is left to do.

    Args:
        config: The resolved configuration.
        spec: What the model declares.
        model: How the model runs.
        stride: Pixels from tile to tile.
        directory: Where results are.
        listener: Told of each scene that is left to do.
        unreachable: Id and reason of scenes that need not be tried.
        unlocated: Paths of scenes that are known to have no place on the Earth.
    """

    def __init__(
        self,
        config: SegmentConfig,
        spec: ModelSpec,
        model: PredictorConfig,
        stride: int,
        directory: RunDirectory,
        listener: Listener,
        unreachable: Mapping[str, str] = MappingProxyType({}),
        unlocated: Collection[str] = (),
    ) -> None:
        self.config, self._spec, self.model = config, spec, model
        self._directory, self._listener = directory, listener
        self._stride, self._unreachable = stride, unreachable
        self._unlocated = frozenset(unlocated)
        self._collection = directory.collection_id()
        wanted = map(str, config.output.exclude)
        self._excluded = frozenset(excluded_ids(spec.classes, wanted))

    def scenes(
        self, files: Iterable[SceneFile]
    ) -> Generator[SceneJob | SceneResult | SceneFailure | None]:
        """Open scenes as they are asked for: an archive may have thousands.

        Those of other machines are looked at some ahead. The order is that of `files`.

        Yields:
            What is left to do, what is whole already, and what cannot be read; None
            while a server is waited for.
        """
        for found in looked_at(files, self._look):
            if found is None:
                yield None
                continue
            file, identity = found
            try:
                yield self._scene(file, identity())
            except (GeosegError, OSError) as error:
                # Without what signs a request: reports are passed on.
                reason = one_line(error).replace(file.path, shown(file.path))
                yield SceneFailure(file.scene_id, reason)
            except Exception as error:  # One odd file must not stop an archive.
                logger.debug("%s cannot be planned", file.path, exc_info=True)
                reason = f"{type(error).__name__}: {error}"
                yield SceneFailure(file.scene_id, one_line(reason))

    def _look(self, file: SceneFile) -> _Identity:
        """Ask what a scene is; of remote ones, in a thread."""
        if file.scene_id in self._unreachable:
            raise SceneError(self._unreachable[file.scene_id])
        if not (is_virtual(file.path) or Path(file.path).exists()):
            raise SceneError(f"{file.path} does not exist any more; check the path")
        name = os.fsencode(file.path).decode("utf-8", "replace")
        if name != file.path:
            raise SceneError(f"GDAL opens no name that is not UTF-8: {name}; rename it")
        _check_place(self._directory.scene_folder(file.scene_id))
        # Before the scene is opened: what changes later is told from what was opened.
        state = input_state(file.path)
        if is_remote(file.path):
            fetch_start(file.path)  # Then opening it asks for nothing, or for little.
        verify = self.config.input.verify
        return _Identity(state, input_content(file.path) if verify else state)

    def _scene(self, file: SceneFile, identity: _Identity) -> SceneJob | SceneResult:
        scene = self._open(file)
        if self.config.output.polygons:
            # Not at the end: by then the model would have run for nothing.
            self.config.output.generalization.check(scene.grid)
        weights = self._spec.weights_sha256
        settings = self._settings(scene)
        key = scene_key(file.path, identity.known_by, weights, settings)
        result = self._directory.finished(file.scene_id, key)
        if result is None:
            return self._job(file, scene, identity.state, key)
        self._directory.discard_parts(file.scene_id)
        return result

    def _settings(self, scene: Scene) -> dict[str, Any]:
        """Settings that change pixels, or bytes of outputs."""
        config, spec = self.config, self._spec
        return {
            "geoseg": __version__,
            # Not all of it is in the hashed weights: mean and std have their own file.
            "declared": [asdict(c) for c in spec.classes]
            + [spec.bands, spec.scale, spec.mean, spec.std, spec.resolution],
            "tile_size": self.model.tile_size,
            "stride": self._stride,
            "window": config.tiling.window,
            "space": config.tiling.space,
            "resolution": config.input.resolution,
            "bands": config.input.bands,
            "scale": config.input.scale,
            "nodata": config.input.nodata,
            # The content, as the scene's CRS has it: the file may be written again.
            "area": scene.aoi and hashlib.sha256(scene.aoi).hexdigest(),
            "confidence": config.output.confidence,
            "polygons": config.output.polygons,
            "scores": config.output.save_scores,
            "compress": config.output.compress,
            "exclude": sorted(self._excluded),
            "generalization": [config.output.min_area, config.output.simplify],
            # C3 promises identical bytes only where these are equal.
            "arithmetic": [
                self.model.device.split(":")[0],
                self.model.dtype,
                self.model.batch_size,
                self.model.torch_threads,
                self.model.compile,
                self.model.tta,
                # The reference rounds otherwise than the native operators.
                LIBRARY.loaded,
            ],
        }

    def _job(self, file: SceneFile, scene: Scene, state: str, key: str) -> SceneJob:
        wanted = scene.region or scene.grid.whole
        tiles = count_tiles(wanted, self.model.tile_size, self._stride)
        if tiles > MOST_TILES:
            raise SceneError(
                f"{file.path} would run as {scene.grid.height} x {scene.grid.width} "
                f"pixels in some {tiles} tiles, more than {MOST_TILES}; run it at a "
                "coarser --resolution, or parts of it with --bbox"
            )
        grid = TileGrid(
            scene.grid.height,
            scene.grid.width,
            self.model.tile_size,
            self._stride,
            scene.region,
        )
        job = SceneJob(
            scene=scene,
            scene_id=file.scene_id,
            grid=grid,
            classes=self._spec.classes,
            work=str(self._directory.work_folder(file.scene_id, key).absolute()),
            out=str(self._directory.scene_folder(file.scene_id).absolute()),
            key=key,
            state=state,
            window=self.config.tiling.window,
            space=self.config.tiling.space,
            confidence=self.config.output.confidence,
            polygons=self.config.output.polygons,
            scores=self.config.output.save_scores,
            codec=self.config.output.compress,
            excluded=self._excluded,
            generalization=self.config.output.generalization,
            provenance=(
                ("software", f"geoseg {__version__}"),
                ("model", self._spec.name),
                ("model_sha256", self._spec.weights_sha256),
                ("source", tree_parts(file.path)[-1]),
                ("key", key),
            ),
            collection=self._collection,
            item=file.item,
        )
        again = self.config.output.overwrite
        self._directory.discard_parts(file.scene_id, keep=None if again else key)
        tiles = sum(len(band) for band in job.bands)
        self._listener.planned(file.scene_id, scene, tiles)
        return store_area(job)

    def _open(self, file: SceneFile) -> Scene:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", GeosegWarning)
            scene = _open_scene(file, self._spec, self.config)
        for warning in caught:
            known = file.path in self._unlocated and issubclass(
                warning.category, UnlocatedWarning
            )
            if issubclass(warning.category, GeosegWarning) and not known:
                self._listener.note(str(warning.message))
        return scene


def check_options(
    files: Sequence[SceneFile], spec: ModelSpec, config: SegmentConfig
) -> None:
    """Refuse options that are wrong for every scene, before anything is written.

    The first scene that can be opened tells.

    Raises:
        UsageError: An option is wrong.
    """
    excluded_ids(spec.classes, map(str, config.output.exclude))
    for file in files:
        try:
            with warnings.catch_warnings(action="ignore", category=GeosegWarning):
                _open_scene(file, spec, config)
        except UsageError:
            raise
        except Exception:  # Planning tells it as this scene's failure.
            logger.debug("%s cannot be opened", file.path, exc_info=True)
        else:
            return


def _open_scene(file: SceneFile, spec: ModelSpec, config: SegmentConfig) -> Scene:
    given = config.input
    return open_scene(
        file.path,
        spec,
        resolution=given.resolution,
        bands=given.bands,
        scale=given.scale,
        nodata=given.nodata,
        aoi=given.aoi,
        bbox=given.bbox,
    )


def _check_place(folder: Path) -> None:
    """Refuse a folder that could not be made once the model has run for nothing.

    Raises:
        SceneError: Its name is too long, or a file is in the way.
    """
    try:
        if stat.S_ISDIR(folder.stat().st_mode):
            return
        reason = "a file is there"
    except FileNotFoundError:
        return
    except OSError as error:
        reason = str(error.strerror)
    raise SceneError(
        f"its folder in the run directory cannot be made ({reason}); rename the scene, "
        "pass another --root, or choose another -o"
    )
