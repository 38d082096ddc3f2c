"""The job `geoseg preview`: one picture for each finished scene of a run directory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoseg.errors import GeosegError, SceneError, UsageError
from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path
from geoseg.io.location import name_for_gdal
from geoseg.io.overview import (
    Outlines,
    read_mask,
    read_mask_grid,
    read_outlines,
    read_picture,
)
from geoseg.io.stac import read_item
from geoseg.layout import ITEM, PREVIEW
from geoseg.preview import (
    Share,
    Stretch,
    Subject,
    View,
    choose_stretch,
    is_stacked,
    most_diverse,
    render,
    stretched,
)
from geoseg.reporting.items import find_items

logger = logging.getLogger(__name__)

LARGE = 3000
"""Side of a scene, pixels, from which outlines are drawn for a detail only."""

DETAIL = 800
"""Side of the detail, pixels."""

OUTLINES = 30_000
"""Polygons drawn at most."""


@dataclass(frozen=True, slots=True)
class PreviewConfig:
    """What to draw."""

    out: Path
    """Run directory."""
    scenes: tuple[str, ...] = ()
    """Ids of scenes; none draws every finished one."""
    file: Path | None = None
    """Where the picture of one scene goes; None: beside its results."""
    width: int = 2400
    """Width of a picture, pixels."""


def run(config: PreviewConfig, drawn: Callable[[Path], None]) -> list[tuple[str, str]]:
    """Draw scenes, one after the other.

    Args:
        config: What to draw.
        drawn: Called with each picture.

    Returns:
        Id and reason of each scene that could not be drawn.

    Raises:
        UsageError: There is no such run directory or scene.
    """
    known = finished_scenes(config.out)
    wanted = config.scenes or tuple(known)
    for scene_id in wanted:
        if scene_id not in known:
            raise UsageError(
                f"{config.out} has no finished scene {scene_id!r}; it has {_few(known)}"
            )
    if config.file is not None and len(wanted) > 1:
        raise UsageError(
            f"-o names one picture, and {len(wanted)} scenes are to be drawn; choose "
            "one with --scene, or leave -o out"
        )
    bands = bands_of(config.out)
    failures = []
    for scene_id in wanted:
        folder = config.out / scene_id
        target = config.file or folder / PREVIEW
        try:
            subject = load_subject(folder, scene_id, bands, config.width)
            with atomic_path(target) as temporary:
                render(subject, temporary, config.width)
        except (GeosegError, OSError) as error:
            logger.info("%s cannot be drawn", scene_id, exc_info=True)
            failures.append((scene_id, str(error)))
        else:
            drawn(target)
    return failures


def finished_scenes(out: Path) -> list[str]:
    """Return the ids of the scenes that are whole, sorted.

    Raises:
        UsageError: There is none.
    """
    if not out.is_dir():
        raise UsageError(f"{out} is no folder; name the -o of a `geoseg segment` call")
    ids = [scene_id for scene_id, _ in find_items(out)]
    if not ids:
        raise UsageError(
            f"{out} holds no finished scene; run `geoseg segment SCENES -o {out}` first"
        )
    return ids


def load_subject(
    folder: Path, scene_id: str, bands: Sequence[int] | None, width: int
) -> Subject:
    """Read what a picture of a scene shows, no finer than it can show.

    Args:
        folder: Results of the scene.
        scene_id: Its id.
        bands: Bands of the source for red, green, blue; None chooses.
        width: Width of the picture, pixels.
    """
    entry = _read_entry(folder / ITEM)
    grid, tags = read_mask_grid(entry.mask)
    views = _Views(entry, grid, bands, width)
    whole = views.of(grid.whole)
    detail = None
    if max(grid.shape) > LARGE:
        # As many pixels as a square, in the proportions of its panel.
        root = min(2.0, max(0.5, (grid.height / grid.width) ** 0.5))
        size = (round(DETAIL * root), round(DETAIL / root))
        detail = views.of(most_diverse(whole.mask, grid.shape, size))
    shown = detail or whole
    outlines = None
    if entry.segments is not None:
        outlines = _outlines(entry.segments, grid.window(shown.window), width)
    return Subject(
        title=scene_id,
        grid=grid,
        code=entry.code,
        model=tags.get("model"),
        shares=entry.shares,
        whole=whole,
        detail=detail,
        outlines=outlines,
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the STAC item of a scene says."""

    mask: Path
    segments: Path | None
    source: str | None
    code: str | None
    shares: tuple[Share, ...]


def _read_entry(path: Path) -> _Entry:
    item = read_item(path)
    try:
        assets, properties = item["assets"], item["properties"]
        segments, source = assets.get("segments"), properties.get("geoseg:source")
        return _Entry(
            mask=path.parent / assets["classes"]["href"],
            segments=segments and path.parent / segments["href"],
            source=source and name_for_gdal(source),
            code=properties.get("proj:code"),
            shares=_shares(item),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SceneError(
            f"{path} is not as geoseg writes it ({type(error).__name__}: {error}); "
            "remove it, and `geoseg segment` makes the scene again"
        ) from error


class _Views:
    """Reads windows of a scene and its class mask, all with the same stretch."""

    def __init__(
        self, entry: _Entry, grid: Grid, bands: Sequence[int] | None, width: int
    ) -> None:
        self.mask, self.source = entry.mask, entry.source
        self.grid, self.bands = grid, bands
        self.side = width if is_stacked(grid.shape) else width // 2
        self.stretch: Stretch | None = None

    def of(self, window: Window) -> View:
        shape = _fitted((window.height, window.width), self.side)
        mask = read_mask(self.mask, window, shape)
        if self.source is None:
            return View(window, mask, None, None)
        try:
            picture = read_picture(
                self.source, self.grid.window(window), self.bands, shape
            )
        except SceneError as error:
            # The results are there; a scene that moved away is no reason to show none.
            logger.warning("drawn without the scene: %s", error)
            self.source = None
            return View(window, mask, None, None)
        self.stretch = self.stretch or choose_stretch(picture)
        return View(window, mask, stretched(picture, self.stretch), picture.valid)


def _fitted(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Return a shape of the same proportions whose longer side is `side` at most."""
    factor = min(1.0, side / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _outlines(path: Path, grid: Grid, width: int) -> Outlines:
    # Smaller than this they would be dots that hide the scene.
    pixel = max(1.0, 3 * max(grid.shape) / width)
    return read_outlines(path, grid, min_pixels=round(2 * pixel**2), limit=OUTLINES)


def _shares(item: dict[str, Any]) -> tuple[Share, ...]:
    """Return the classes that were found, the largest first."""
    pixels = {
        entry["id"]: entry["pixels"] for entry in item["properties"]["geoseg:classes"]
    }
    total = sum(pixels.values()) or 1
    shares = [
        Share(
            entry["value"],
            entry["title"],
            _rgb(entry["color_hint"]),
            pixels.get(entry["value"], 0) / total,
        )
        for entry in item["assets"]["classes"]["classification:classes"]
    ]
    return tuple(sorted(shares, key=lambda share: -share.share))


def _rgb(hint: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(hint)
    return red, green, blue


def bands_of(out: Path) -> list[int] | None:
    """Return the bands that the last call was told to read, if they make a picture."""
    try:
        settings = yaml.safe_load((out / "run.yaml").read_text(encoding="utf-8"))
        bands = settings["input"]["bands"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return bands[:3] if isinstance(bands, list) and len(bands) >= 3 else None


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
