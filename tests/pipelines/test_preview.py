"""Pictures of a made run: what is in them, and what happens when something is not."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from class_masks import trace_whole
from PIL import Image
from rasterio.crs import CRS
from rasters import GRIDS, write_mask, write_raster

from geoseg.errors import UsageError
from geoseg.grid import Grid, Window
from geoseg.io.overview import Picture, read_mask_grid, read_outlines, read_picture
from geoseg.io.stac import write_item
from geoseg.io.vector import write_segments
from geoseg.layout import ITEM
from geoseg.pipelines import preview as job
from geoseg.pipelines.preview import PreviewConfig, load_subject, run
from geoseg.preview import choose_stretch, most_diverse, stretched
from geoseg.preview.marks import round_length
from geoseg.preview.paint import class_pixels
from geoseg.types import NODATA, ClassInfo

CLASSES = (
    ClassInfo(1, "water", (0, 0, 250)),
    ClassInfo(2, "forest $x_1$ <é>", (0, 250, 0)),
    ClassInfo(5, "roof", (250, 0, 0)),
)


@dataclass
class MadeRun:
    """A run directory written without a model."""

    out: Path

    def add(
        self,
        scene_id: str,
        mask: npt.NDArray[np.uint8],
        *,
        source: Path | None,
        grid: tuple[str, Affine] | None = GRIDS["north-up"],
        polygons: bool = True,
    ) -> Path:
        """Write the outputs of a scene and return their folder."""
        folder = self.out / scene_id
        folder.mkdir(parents=True)
        wkt = None if grid is None else CRS.from_string(grid[0]).to_wkt()
        transform = Affine.identity() if grid is None else grid[1]
        place = Grid(mask.shape[0], mask.shape[1], transform, wkt)
        tags = {"model": "org/toy"}
        write_mask(folder / "classes.tif", mask, place, CLASSES, tags)
        assets = {"classes": "classes.tif"}
        if polygons:
            assets["segments"] = "segments.gpkg"
            write_segments(
                folder / "segments.gpkg",
                [trace_whole(mask, None, transform)],
                grid=place,
                classes=CLASSES,
                scene_id=scene_id,
                provenance={},
            )
        properties: dict[str, Any] = {
            "geoseg:classes": [
                {"id": c.id, "name": c.name, "pixels": int((mask == c.id).sum())}
                for c in CLASSES
            ]
        }
        if source is not None:
            properties["geoseg:source"] = str(source)
        write_item(
            folder / ITEM,
            scene_id=scene_id,
            grid=place,
            classes=CLASSES,
            assets=assets,
            properties=properties,
        )
        return folder


@pytest.fixture
def made(tmp_path: Path) -> MadeRun:
    """An empty run directory."""
    return MadeRun(tmp_path / "out")


def blocks(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A mask of vertical stripes of each class, nodata in the upper rows."""
    stripes = np.array([1, 2, 5, 2], np.uint8)[np.arange(width) * 4 // width]
    mask = np.tile(stripes, (height, 1))
    mask[: height // 8] = NODATA
    return mask


def scene_file(folder: Path, shape: tuple[int, int], **how: Any) -> Path:  # noqa: ANN401
    """Write a scene whose red grows to the right."""
    red = np.tile(np.linspace(20, 250, shape[1]), (shape[0], 1))
    pixels = np.stack([red, red * 0 + 80, red * 0 + 40]).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    return write_raster(folder / "scene.tif", pixels, **how)


def drawn(config: PreviewConfig) -> list[Path]:
    """Draw, and return the pictures; every scene must succeed."""
    paths: list[Path] = []
    assert run(config, paths.append) == []
    return paths


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height of a picture."""
    with Image.open(path) as image:
        return image.size


def colors(path: Path) -> set[tuple[int, int, int]]:
    """Return the colours that a picture holds in large areas."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(1 << 24) or []
    return {color for count, color in found if count > 300}  # type: ignore[misc]


@pytest.mark.parametrize("name", GRIDS)
def test_a_picture_is_made_on_every_kind_of_grid(
    made: MadeRun, tmp_path: Path, name: str
) -> None:
    crs, transform = GRIDS[name]
    source = scene_file(tmp_path, (48, 64), crs=crs, transform=transform)
    made.add("2024/a", blocks(48, 64), source=source, grid=GRIDS[name])
    (path,) = drawn(PreviewConfig(made.out, width=800))
    assert path == made.out / "2024/a/preview.png"
    width, height = size_of(path)
    assert width == 800
    assert 150 < height < 500
    assert sorted(p.name for p in path.parent.iterdir() if "tmp" in p.name) == []


def test_without_the_scene_classes_have_their_colours(made: MadeRun) -> None:
    made.add("a", blocks(40, 40), source=Path("gone.tif"), polygons=False)
    (path,) = drawn(PreviewConfig(made.out, width=800))
    assert {info.color for info in CLASSES} <= colors(path)


@pytest.mark.parametrize("shape", [(1, 1), (20, 300), (300, 20)])
def test_any_shape_and_no_crs_will_do(
    made: MadeRun, tmp_path: Path, shape: tuple[int, int]
) -> None:
    source = scene_file(tmp_path, shape, crs=None, transform=Affine.identity())
    made.add("a", np.full(shape, 2, np.uint8), source=source, grid=None)
    (path,) = drawn(PreviewConfig(made.out, width=900))
    width, height = size_of(path)
    assert width == 900
    assert height < 1.2 * 900


def test_a_large_scene_shows_a_detail(
    made: MadeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LARGE", 100)
    monkeypatch.setattr(job, "DETAIL", 40)
    mask = np.full((200, 200), 2, np.uint8)
    mask[100:140, 140:160] = 5
    folder = made.add("a", mask, source=scene_file(tmp_path, (200, 200)))
    subject = load_subject(folder, "a", None, 800)
    assert subject.detail is not None
    assert subject.detail.window == Window(100, 120, 40, 40)
    assert set(np.unique(subject.detail.mask)) == {2, 5}
    assert subject.outlines is not None
    (roof,) = np.flatnonzero(subject.outlines.class_id == 5)
    ring = subject.outlines.rings[roof][0]
    np.testing.assert_allclose(ring.min(axis=0), [20, 0], atol=1e-6)
    np.testing.assert_allclose(ring.max(axis=0), [40, 40], atol=1e-6)
    drawn(PreviewConfig(made.out, width=800))


def test_the_scene_is_shown_where_a_clipped_and_coarser_mask_lies(
    tmp_path: Path,
) -> None:
    crs, transform = GRIDS["rotated"]
    source = scene_file(tmp_path, (40, 80), crs=crs, transform=transform)
    native = Grid(40, 80, transform, CRS.from_string(crs).to_wkt())
    clipped = native.resampled((2, 2)).window(Window(5, 10, 10, 30))
    picture = read_picture(str(source), clipped, None, (10, 30))
    red = np.linspace(20, 250, 80).astype(np.uint8).reshape(40, 2).mean(axis=1)[10:]
    assert picture.valid.all()
    np.testing.assert_allclose(picture.values[0], np.tile(red, (10, 1)), atol=1)
    np.testing.assert_allclose(picture.values[1], 80)


def test_pixels_without_data_are_not_valid(tmp_path: Path) -> None:
    alpha = np.ones((16, 16), np.bool_)
    alpha[:8] = False
    source = scene_file(tmp_path, (16, 16), alpha=alpha)
    grid, _ = read_mask_grid(source)
    np.testing.assert_array_equal(
        read_picture(str(source), grid, None, (16, 16)).valid, alpha
    )


def test_bands_of_the_run_are_shown(made: MadeRun, tmp_path: Path) -> None:
    folder = made.add("a", blocks(16, 16), source=scene_file(tmp_path, (16, 16)))
    (made.out / "run.yaml").write_text("input: {bands: [3, 3, 2]}\n")
    (path,) = drawn(PreviewConfig(made.out, width=800))
    assert path.parent == folder
    assert (40, 40, 80) in colors(path)


def test_small_polygons_are_left_out_of_a_small_picture(made: MadeRun) -> None:
    mask = np.full((32, 32), 2, np.uint8)
    mask[4, 4] = 1
    mask[10:20, 10:20] = 5
    folder = made.add("a", mask, source=None)
    grid, _ = read_mask_grid(folder / "classes.tif")
    path = folder / "segments.gpkg"
    all_of_them = read_outlines(path, grid, min_pixels=1, limit=9)
    assert all_of_them.class_id.tolist() == [2, 5, 1]
    assert len(all_of_them.rings[0]) == 3
    assert read_outlines(path, grid, min_pixels=2, limit=9).class_id.tolist() == [2, 5]
    assert read_outlines(path, grid, min_pixels=1, limit=1).class_id.tolist() == [2]


def test_only_finished_scenes_are_drawn(made: MadeRun, tmp_path: Path) -> None:
    source = scene_file(tmp_path, (16, 16))
    made.add("a", blocks(16, 16), source=source)
    (made.add("b", blocks(16, 16), source=source) / ITEM).unlink()
    work = made.out / ".geoseg" / "parts" / "c"
    work.mkdir(parents=True)
    (work / ITEM).write_text("{}")
    assert drawn(PreviewConfig(made.out, width=600)) == [made.out / "a/preview.png"]


def test_a_broken_scene_does_not_stop_the_others(made: MadeRun) -> None:
    (made.add("a", blocks(16, 16), source=None) / "classes.tif").write_bytes(b"II*")
    (made.add("b", blocks(16, 16), source=None) / ITEM).write_text(
        '{"properties": {}, "assets": {}}'
    )
    (made.add("c", blocks(16, 16), source=None) / "segments.gpkg").unlink()
    damaged = made.add("d", blocks(16, 16), source=None) / "segments.gpkg"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    other = made.add("e", blocks(16, 16), source=None) / "segments.gpkg"
    with closing(sqlite3.connect(other)) as database:
        database.execute("ALTER TABLE segments RENAME COLUMN pixels TO other")
    made.add("f", blocks(16, 16), source=None)
    paths: list[Path] = []
    failures = run(PreviewConfig(made.out, width=600), paths.append)
    assert paths == [made.out / "f" / "preview.png"]
    assert [scene_id for scene_id, _ in failures] == ["a", "b", "c", "d", "e"]
    for _, reason in failures[2:]:
        assert re.search("segments.gpkg cannot be read.*makes the scene again", reason)
    assert "classes.tif cannot be read" in failures[0][1]
    assert "is not as geoseg writes it" in failures[1][1]
    assert not (made.out / "a" / "preview.png").exists()


def test_one_file_is_for_one_scene(made: MadeRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        made.add(name, blocks(16, 16), source=None)
    target = tmp_path / "pictures" / "one.png"
    with pytest.raises(UsageError, match="2 scenes are to be drawn"):
        run(PreviewConfig(made.out, file=target), print)
    config = PreviewConfig(made.out, scenes=("b",), file=target, width=600)
    assert drawn(config) == [target]
    assert not (made.out / "b" / "preview.png").exists()
    with pytest.raises(UsageError, match="no finished scene 'z'; it has a, b"):
        run(PreviewConfig(made.out, scenes=("z",)), print)


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no finished scene"):
        run(PreviewConfig(tmp_path), print)
    with pytest.raises(UsageError, match="is no folder"):
        run(PreviewConfig(tmp_path / "none"), print)


def test_sixteen_bits_are_stretched_and_eight_are_not() -> None:
    values = np.tile(np.linspace(1000, 3000, 101, dtype=np.float32), (3, 1, 1))
    valid = np.ones((1, 101), np.bool_)
    deep = Picture(values, valid, "uint16")
    shown = stretched(deep, choose_stretch(deep))
    assert (shown[0, :3] == 0).all()
    assert (shown[0, -3:] == 255).all()
    assert 120 < shown[0, 50, 0] < 135
    plain = Picture((values / 20).astype(np.float32), valid, "uint8")
    shown = stretched(plain, choose_stretch(plain))
    np.testing.assert_allclose(shown[0, :, 0], values[0, 0] / 20, atol=0.5)
    odd: npt.NDArray[np.float32]
    for odd in (np.full_like(values, 7), values[:, :, :0]):
        picture = Picture(odd, np.ones(odd.shape[1:], np.bool_), "float32")
        stretched(picture, choose_stretch(picture))


def test_nodata_is_transparent_and_what_was_not_segmented_is_pale(
    made: MadeRun, tmp_path: Path
) -> None:
    mask = np.full((16, 16), 1, np.uint8)
    mask[:8] = NODATA
    alpha = np.ones((16, 16), np.bool_)
    alpha[:4] = False
    source = scene_file(tmp_path, (16, 16), alpha=alpha)
    folder = made.add("a", mask, source=source)
    view = load_subject(folder, "a", None, 800).whole
    pixels = class_pixels(view, {1: (0, 0, 250)})
    assert (pixels[:4, :, 3] == 0).all()
    assert (pixels[4:, :, 3] == 255).all()
    pale = pixels[4:8, :, :3]
    assert (pale.min(axis=2) == pale.max(axis=2)).all()
    assert pale.min() > 150
    blue = pixels[8:, :, :3].astype(int)
    assert (blue[..., 2] - blue[..., 0] > 150).all()


def test_the_detail_is_where_classes_mix_and_data_are() -> None:
    squares = np.indices((20, 20)).sum(axis=0) % 2
    mask = np.full((50, 50), NODATA, np.uint8)
    mask[:20, :20] = np.where(np.eye(20), 1, 2)
    mask[:20, 30:] = np.where(np.eye(20), NODATA, squares + 1)
    mask[30:, 30:] = squares + 1
    window = most_diverse(mask, (500, 500), (200, 200))
    assert window == Window(300, 300, 200, 200)
    assert most_diverse(mask, (5, 50), (200, 20)).height == 5


@pytest.mark.parametrize(
    ("longest", "length"), [(1, 1), (4.9, 2), (5, 5), (99, 50), (0.3, 0.2), (1e4, 1e4)]
)
def test_scale_bars_have_round_lengths(longest: float, length: float) -> None:
    assert round_length(longest) == pytest.approx(length)
