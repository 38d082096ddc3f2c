"""The job `geoseg explain`: what the model looks at, as figures and layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from geoseg import __version__
from geoseg.errors import ExplainError, OutputError
from geoseg.explain.attention import check_index, explain_attention
from geoseg.explain.features import SceneFeatures
from geoseg.explain.loading import load_explained
from geoseg.explain.masks import capture_masks
from geoseg.explain.output import Output
from geoseg.explain.rollout import Fusion
from geoseg.explain.sampling import capture_sampling, pick
from geoseg.explain.sheet import tile_picture
from geoseg.explain.show_attention import show_attention
from geoseg.explain.show_features import (
    basis_facts,
    draw_features,
    place_of,
    write_colors,
    write_similarity,
)
from geoseg.explain.show_masks import show_masks
from geoseg.explain.show_patches import show_patches
from geoseg.explain.show_position import show_position
from geoseg.explain.show_sampling import show_sampling
from geoseg.explain.subject import Subject, find_place, find_window, read_subject
from geoseg.explain.vit import find_vit
from geoseg.grid import Window
from geoseg.inference import Predictor, PredictorConfig
from geoseg.io.aoi import Box
from geoseg.io.raster import Scene, open_scene
from geoseg.models import find_model, read_spec
from geoseg.tiling import TileGrid, default_stride
from geoseg.types import ClassInfo, ModelSpec

Kind = Literal["patches", "attention", "features", "position", "sampling", "masks"]
"""What can be explained."""

Done = Callable[[int, int], None]
"""Told of tiles that are done, and of all that there are."""


@dataclass(frozen=True, slots=True)
class ExplainConfig:
    """What to explain, where, and what of it."""

    kind: Kind
    """What is shown."""
    scene: str
    """The scene."""
    out: Path
    """Folder of figures and layers; made when it is missing."""
    at: tuple[float, float] | None = None
    """The place: x and y in the scene's CRS."""
    window: Box | None = None
    """Part of the scene: left, bottom, right, top in its CRS. Its centre is the place
    without `at`; features are those of this part; it ranks queries."""
    model: str = "builtin"
    """The model that ships with geoseg, a folder, or a Hugging Face id."""
    tile_size: int | None = None
    """Side of a tile, pixels; None: the model's."""
    resolution: Literal["auto", "native"] | float = "auto"
    """By the model's resolution, the scene's own, or metres a pixel."""
    bands: tuple[int, ...] | None = None
    """1-based bands in the model's order."""
    scale: float | None = None
    """Digital number that means 1.0."""
    nodata: float | None = None
    """Value of pixels without data."""
    token: str = "patch"
    """Whose attention: `patch` is that of the place, else `cls`, `register 1`, ..."""
    layer: int | None = None
    """Layer whose heads are shown; None: the last."""
    fusion: Fusion = "mean"
    """How rollout makes heads one."""
    discard: float = 0.0
    """Part of the weights that rollout counts as 0."""
    part: str | None = None
    """Deformable attention that is shown by heads; None: the first."""
    level: int = 0
    """Level whose cell at the place is the query."""
    class_name: str | None = None
    """Class whose queries are ranked; None: that of the place."""
    query: int | None = None
    """Query that is followed; None: the one that adds most."""


def run(config: ExplainConfig, done: Done | None = None) -> list[Path]:
    """Explain one thing and write it.

    Args:
        config: What to explain.
        done: Told of progress of features, which run over the whole scene.

    Returns:
        Files written.

    Raises:
        UsageError: The place, layer, head, query or part does not exist, or the model
            has nothing of the kind.
        SceneError: The scene cannot be read.
    """
    opened = _open(config)
    if config.kind == "features":
        return _features(config, opened, done)
    output = _output(config, opened)
    _SHOWN[config.kind](config, output, opened.predictor.spec, opened.window)
    return output.written


def prepare(config: ExplainConfig) -> Output:
    """Load the model and read the tile of the place, as `run` does, and run nothing.

    The functions of `geoseg.explain` take what it holds: `model`, and
    `subject.images`.

    Raises:
        UsageError: There is no such place, or none is given.
        SceneError: The scene cannot be read.
    """
    return _output(config, _open(config))


@dataclass(frozen=True, slots=True)
class _Opened:
    scene: Scene
    window: Window | None
    place: tuple[int, int] | None
    predictor: Predictor


def _open(config: ExplainConfig) -> _Opened:
    if config.kind not in get_args(Kind):
        known = ", ".join(get_args(Kind))
        raise ExplainError(f"{config.kind!r} cannot be explained; {known} can be")
    if config.out.exists() and not config.out.is_dir():
        raise OutputError(f"{config.out} is no folder; name another -o")
    folder = find_model(config.model)
    spec = read_spec(folder, name=config.model, tile_size=config.tile_size)
    scene = open_scene(
        config.scene,
        spec,
        resolution=config.resolution,
        bands=config.bands,
        scale=config.scale,
        nodata=config.nodata,
    )
    window = _window(config, scene)
    place = _place(config, scene, window)
    predictor = Predictor(load_explained(folder), spec, _predictor_config(folder, spec))
    return _Opened(scene, window, place, predictor)


def _output(config: ExplainConfig, opened: _Opened) -> Output:
    if opened.place is None:  # Of a whole scene's features.
        raise ExplainError("a tile is that of a place; give at, or window, in the CRS")
    scene, predictor = opened.scene, opened.predictor
    tiles = _tiles(scene, predictor.spec, None)
    subject = read_subject(scene, opened.place, tiles, predictor)
    return Output(
        config.out,
        subject,
        tile_picture(subject),
        predictor.model,
        config.model,
        _tags(config, predictor.spec),
    )


def _window(config: ExplainConfig, scene: Scene) -> Window | None:
    if config.window is None:
        return None
    return find_window(scene.grid, config.window, config.scene)


def _place(
    config: ExplainConfig, scene: Scene, window: Window | None
) -> tuple[int, int] | None:
    if config.at is not None:
        return find_place(scene.grid, config.at, config.scene)
    if config.kind == "features":
        return None
    if window is None:
        raise ExplainError(
            f"{config.kind} are those of a place; give --at X,Y or --window "
            "LEFT,BOTTOM,RIGHT,TOP in the scene's CRS"
        )
    return window.row + window.height // 2, window.col + window.width // 2


def _predictor_config(folder: Path, spec: ModelSpec) -> PredictorConfig:
    return PredictorConfig(str(folder), spec.weights_sha256, spec.tile_size)


def _tiles(scene: Scene, spec: ModelSpec, region: Window | None) -> TileGrid:
    """Return the tiles that `geoseg segment` cuts the scene into by default."""
    stride = default_stride(spec.tile_size, spec.patch_size)
    return TileGrid(scene.grid.height, scene.grid.width, spec.tile_size, stride, region)


def _tags(config: ExplainConfig, spec: ModelSpec) -> dict[str, str]:
    return {
        "software": f"geoseg {__version__}",
        "explains": config.kind,
        "model": spec.name,
        "model_sha256": spec.weights_sha256,
        "source": Path(config.scene).name,
    }


def _patches(
    _: ExplainConfig, output: Output, __: ModelSpec, ___: Window | None
) -> None:
    show_patches(output, find_vit(output.model).patch_size[0])


def _attention(
    config: ExplainConfig, output: Output, _: ModelSpec, __: Window | None
) -> None:
    subject = output.subject
    vit = find_vit(output.model)
    layer = vit.depth - 1 if config.layer is None else config.layer
    check_index("layer", layer, vit.depth)
    tokens = vit.tokens(*subject.images.shape[2:])
    query: str | tuple[int, int] = config.token
    named = f"[{config.token.upper()}]" if config.token == "cls" else config.token
    if config.token == "patch":
        row, col = (
            int(share * side)
            for share, side in zip(subject.share, tokens.shape, strict=True)
        )
        query, named = (row, col), f"the patch in row {row}, column {col}"
    attention = explain_attention(
        output.model,
        subject.images,
        query,
        fusion=config.fusion,
        discard=config.discard,
    )
    show_attention(output, attention, layer, named)


def _position(
    _: ExplainConfig, output: Output, __: ModelSpec, ___: Window | None
) -> None:
    show_position(output, find_vit(output.model))


def _sampling(
    config: ExplainConfig, output: Output, _: ModelSpec, __: Window | None
) -> None:
    samplings = capture_sampling(output.model, output.subject.images)
    chosen = samplings[0] if config.part is None else pick(samplings, config.part)
    show_sampling(output, samplings, chosen, config.level)


def _masks(
    config: ExplainConfig, output: Output, spec: ModelSpec, window: Window | None
) -> None:
    subject = output.subject
    masks = capture_masks(output.model, subject.images)
    logits = masks.class_logits()
    row, col = (
        int(share * side)
        for share, side in zip(subject.share, logits.shape[1:], strict=True)
    )
    index = int(logits[:, row, col].argmax())
    if config.class_name is not None:
        index = _class_index(spec.classes, config.class_name)
    where = _counted(subject, window)
    show_masks(output, masks, spec.classes, index, config.query, where)


def _class_index(classes: tuple[ClassInfo, ...], name: str) -> int:
    """Return the place of a class, given by id or name.

    Raises:
        ExplainError: There is none; lists those that there are.
    """
    for index, info in enumerate(classes):
        if name in (info.name, str(info.id)):
            return index
    known = ", ".join(f"{info.id} ({info.name})" for info in classes)
    raise ExplainError(f"the model has no class {name!r}; it has {known}")


def _counted(subject: Subject, window: Window | None) -> npt.NDArray[np.bool_]:
    """Return which pixels of the tile hold data and lie in the window, if there is one.

    Of a window that the tile does not hold as a whole, its part in the tile.
    """
    where = np.zeros((subject.tile_size, subject.tile_size), np.bool_)
    where[: subject.window.height, : subject.window.width] = subject.pixels.keep
    own = subject.window if window is None else window.intersection(subject.window)
    inside = np.zeros_like(where)
    if own is not None:
        inside[own.relative_to(subject.window).slices] = True
    where &= inside
    if not where.any():
        raise ExplainError(
            "the window holds no pixel with data in the tile of the place; choose a "
            "window around it"
        )
    return where


_SHOWN: dict[
    Kind, Callable[[ExplainConfig, Output, ModelSpec, Window | None], None]
] = {
    "patches": _patches,
    "attention": _attention,
    "position": _position,
    "sampling": _sampling,
    "masks": _masks,
}


def _features(config: ExplainConfig, opened: _Opened, done: Done | None) -> list[Path]:
    scene, predictor, spec = opened.scene, opened.predictor, opened.predictor.spec
    tiles = _tiles(scene, spec, opened.window)
    features = SceneFeatures(scene, tiles, predictor, find_vit(predictor.model))
    subject = None
    if opened.place is not None:
        whole = _tiles(scene, spec, None)
        subject = read_subject(scene, opened.place, whole, predictor)
    count = sum(len(band) for band in tiles.bands(whole_rows=scene.by_rows))
    total, so_far = count * (2 if subject is None else 3), 0

    def tell(tiles_done: int) -> None:
        nonlocal so_far
        so_far += tiles_done
        if done is not None:
            done(so_far, total)

    tags = _tags(config, spec)
    colors, similarity = config.out / "features.tif", None
    basis = features.basis(tell)
    write_colors(colors, features, basis, tags, tell)
    written = [colors]
    if subject is not None:
        similarity = config.out / "similarity.tif"
        write_similarity(similarity, features, subject, tags, tell)
        written.append(similarity)
    figure = config.out / "features.png"
    draw_features(
        figure,
        features,
        f"Features of {Path(config.model).name}'s ViT, {count} tiles, one basis",
        f"{Path(config.scene).name}   ·   {basis_facts(basis)}",
        colors,
        similarity,
        None if subject is None else place_of(subject),
    )
    return [figure, *written]
