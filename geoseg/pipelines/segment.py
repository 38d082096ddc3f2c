"""The job `geoseg segment`: scenes in, class masks, confidence and polygons out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from geoseg import __version__
from geoseg.archive import RunDirectory
from geoseg.clusters.config import ClusterConfig
from geoseg.clusters.opening import check_cluster
from geoseg.config import dump
from geoseg.discovery import SceneFile, mosaic_id
from geoseg.errors import ConfigError, TilingError, UsageError
from geoseg.generalizing import Generalization
from geoseg.inference import PredictorConfig, choose_device, default_batch_size
from geoseg.io.sheets import describe_sheets
from geoseg.layout import RUN_YAML
from geoseg.models.registry import find_model, import_modules, read_spec
from geoseg.pipelines.segment_inputs import (
    absolute_input,
    find_inputs,
    lay_out_sheets,
)
from geoseg.pipelines.segment_plan import Plan, check_options
from geoseg.pipelines.segment_remote import unreachable_scenes
from geoseg.pipelines.segment_report import Listener, RunLog, RunReport
from geoseg.pipelines.segment_run import run_plan
from geoseg.tiling import default_stride
from geoseg.types import BlendSpace, BlendWindow, Codec, Dtype, ModelSpec, OnError

__all__ = [
    "InputConfig",
    "Listener",
    "ModelConfig",
    "OutputConfig",
    "RunReport",
    "SegmentConfig",
    "TilingConfig",
    "run",
]

HEADER = """\
# What this run was given; `geoseg segment -c` of this file runs it again.
# null: the model, the scene or the machine decided.
"""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model, and how it runs."""

    path: str = "builtin"
    """The model that ships with geoseg, a folder, or a Hugging Face id."""
    imports: tuple[str, ...] = ()
    """Modules that register a user's own models, imported before loading."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""
    dtype: Dtype = "auto"
    """Arithmetic; `auto` is bfloat16 on CUDA, float32 on CPU."""
    batch_size: int | None = None
    """Tiles a forward pass; None: 8 on CUDA, 1 on CPU."""
    torch_threads: int = 1
    """Threads of one worker's model."""
    compile: bool = False
    """Use `torch.compile`."""
    tta: bool = False
    """Average over flipped tiles, at four times the cost."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number is too small.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(
                f"a batch of {self.batch_size} tiles is none; use 1 or more"
            )
        if self.torch_threads < 1:
            raise ConfigError(
                f"model.torch_threads is {self.torch_threads}; use 1 or more"
            )


@dataclass(frozen=True, slots=True)
class TilingConfig:
    """How scenes are cut and put together."""

    tile_size: int | None = None
    """Side of a tile, pixels; None: the model's."""
    stride: int | None = None
    """Pixels from tile to tile; None: 13/15 of the tile."""
    overlap: int | None = None
    """Instead of `stride`: tile_size - stride."""
    window: BlendWindow = "hann"
    """Weight of a pixel within its tile."""
    space: BlendSpace = "logits"
    """What overlapping tiles average."""


@dataclass(frozen=True, slots=True)
class InputConfig:
    """How scenes are read."""

    resolution: Literal["auto", "native"] | float = "auto"
    """By the model's resolution, the scene's own, or metres per pixel."""
    bands: tuple[int, ...] | None = None
    """1-based bands in the model's order; None: all, alpha apart, if they fit."""
    scale: float | None = None
    """Digital number that means 1.0; None: as the model declares for the dtype."""
    nodata: float | None = None
    """Value of pixels without data; None: the scene's own."""
    root: str | None = None
    """Folder or URL that scene ids are relative to; None: the common folder."""
    asset: str | None = None
    """Key or role of the assets of STAC items that are scenes; None: the only raster,
    else the one whose role is visual or data."""
    mosaic: bool = False
    """The scenes are abutting sheets of one."""
    verify: bool = False
    """Know scenes by their content instead of their size and time of change."""
    aoi: Path | None = None
    """Vector file of the area wanted."""
    bbox: tuple[float, float, float, float] | None = None
    """The area wanted as left, bottom, right, top in the scene's CRS."""


@dataclass(frozen=True, slots=True)
class OutputConfig:
    """What is written."""

    overwrite: bool = False
    """Recompute finished scenes, and accept a folder that no run made."""
    confidence: bool = True
    """Write `confidence.tif`."""
    polygons: bool = True
    """Write `segments.gpkg`."""
    save_scores: bool = False
    """Write `scores.tif`."""
    compress: Codec = "zstd"
    """Compression of rasters."""
    exclude: tuple[str | int, ...] = ()
    """Ids or names of classes that get no polygons."""
    min_area: float = 0.0
    """Square metres that polygons must have; smaller ones become part of others."""
    simplify: float = 0.0
    """Tolerance of polygons' borders, CRS units."""
    on_error: OnError = "skip"
    """Whether a scene that fails is skipped, or ends the run."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number is out of range.
        """
        try:
            _ = self.generalization
        except UsageError as error:
            raise ConfigError(f"output: {error}") from error

    @property
    def generalization(self) -> Generalization:
        """What is done to polygons once they are traced."""
        return Generalization(min_area=self.min_area, simplify=self.simplify)


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """Everything a run depends on."""

    scenes: tuple[str, ...]
    """Files, patterns, folders, manifests, URLs or STAC documents."""
    out: Path
    """Run directory."""
    model: ModelConfig = field(default_factory=ModelConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    input: InputConfig = field(default_factory=InputConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


def run(
    config: SegmentConfig,
    listener: Listener | None = None,
    *,
    unlocated: Collection[str] = (),
) -> RunReport:
    """Segment scenes; returns when all are whole or have failed.

    Args:
        config: The resolved configuration.
        listener: Told of progress.
        unlocated: Paths of scenes that are known to have no place on the Earth: nobody
            is told of it.

    Returns:
        Results and failures of all scenes.

    Raises:
        UsageError: The call is wrong; nothing was started.
        ClusterError: There is no cluster to run on.
    """
    listener = listener or Listener()
    check_cluster(config.cluster)
    files, root = find_inputs(config)
    mosaic = lay_out_sheets(files) if config.input.mosaic else None
    model, spec = _model(config)
    stride = _stride(config.tiling, spec)
    unreachable = unreachable_scenes(files)
    reached = [file for file in files if file.scene_id not in unreachable]
    check_options(reached, spec, config)
    directory = RunDirectory(config.out, root, overwrite=config.output.overwrite)
    if directory.other_version is not None:
        listener.note(
            f"{config.out} was last written by geoseg {directory.other_version}; this "
            f"is {__version__}, which makes its scenes again"
        )
    with directory.locked():
        directory.write(RUN_YAML, HEADER + dump(_recorded(config)))
        if mosaic is not None:
            scene_id = mosaic_id(config.scenes)
            vrt = directory.mosaic(scene_id, describe_sheets(mosaic))
            files = [SceneFile(str(vrt), scene_id)]
        with RunLog(directory, files, root, spec, Path(model.folder), listener) as log:
            plan = Plan(
                config, spec, model, stride, directory, log, unreachable, unlocated
            )
            run_plan(plan, files, log)
        return log.report()


def _recorded(config: SegmentConfig) -> SegmentConfig:
    """The same call from any folder, paths made absolute, without its secrets."""
    given, model = config.input, config.model
    if Path(model.path).exists():
        model = replace(model, path=str(Path(model.path).absolute()))
    return replace(
        config,
        scenes=tuple(map(absolute_input, config.scenes)),
        out=config.out.absolute(),
        model=model,
        cluster=config.cluster.recorded(),
        input=replace(
            given,
            root=given.root and absolute_input(given.root),
            aoi=given.aoi and given.aoi.absolute(),
        ),
    )


def _model(config: SegmentConfig) -> tuple[PredictorConfig, ModelSpec]:
    import_modules(config.model.imports)
    folder = find_model(config.model.path)
    spec = read_spec(folder, name=config.model.path, tile_size=config.tiling.tile_size)
    device = choose_device(config.model.device, here=config.cluster.is_local)
    predictor = PredictorConfig(
        folder=str(folder.absolute()),
        sha256=spec.weights_sha256,
        tile_size=spec.tile_size,
        device=device,
        dtype=config.model.dtype,
        batch_size=config.model.batch_size or default_batch_size(device),
        torch_threads=config.model.torch_threads,
        compile=config.model.compile,
        tta=config.model.tta,
        imports=config.model.imports,
    )
    return predictor, spec


def _stride(tiling: TilingConfig, spec: ModelSpec) -> int:
    if tiling.stride is not None and tiling.overlap is not None:
        raise TilingError("stride and overlap are two words for one thing; give one")
    if tiling.overlap is not None:
        stride = spec.tile_size - tiling.overlap
    elif tiling.stride is not None:
        stride = tiling.stride
    else:
        stride = default_stride(spec.tile_size, spec.patch_size)
    if not 1 <= stride <= spec.tile_size:
        size = spec.tile_size
        what, limits = f"a stride of {stride}", f"1 to {size}"
        if tiling.overlap is not None:
            what, limits = f"an overlap of {tiling.overlap}", f"0 to {size - 1}"
        raise TilingError(f"{what} does not fit tiles of {size}; use {limits}")
    return stride
