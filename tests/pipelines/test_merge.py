"""A run's scenes as one layer of polygons and one raster."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from class_masks import trace_whole
from commands import geoseg
from rasters import CLASSES, write_mask

from geoseg.discovery import find_scenes
from geoseg.grid import Grid
from geoseg.io.legend import read_legend
from geoseg.io.merged import same_crs
from geoseg.io.stac import write_item
from geoseg.io.vector import write_segments
from geoseg.layout import MERGED_CLASSES
from geoseg.pipelines import merge
from geoseg.types import NODATA, ClassInfo

UTM_31, UTM_32 = "EPSG:32631", "EPSG:32632"


class Run:
    """A run directory with scenes of known classes."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def add(
        self,
        scene_id: str,
        corner: tuple[float, float] = (0, 0),
        *,
        crs: str | None = UTM_31,
        size: float = 2.0,
        classes: tuple[ClassInfo, ...] = CLASSES,
        turn: float = 0.0,
        seed: int = 0,
        hole: bool = False,
    ) -> np.ndarray:
        """Write the outputs of a scene of 30 x 40 pixels; return its mask."""
        left, top = 500_000 + corner[0], 5_800_000 + corner[1]
        transform = Affine(size, turn, left, turn, -size, top)
        wkt = None if crs is None else pyproj.CRS(crs).to_wkt("WKT2_2019")
        grid = Grid(30, 40, transform, wkt)
        ids = [info.id for info in classes]
        mask = np.random.default_rng(seed).choice(ids, (6, 8)).astype(np.uint8)
        mask = np.kron(mask, np.ones((5, 5), np.uint8))
        if hole:
            mask[:, :20] = NODATA
        confidence = np.where(mask == NODATA, NODATA, 50 + seed).astype(np.uint8)
        folder = self.out / scene_id
        folder.mkdir(parents=True)
        write_mask(folder / "classes.tif", mask, grid, classes)
        write_mask(folder / "confidence.tif", confidence, grid, None)
        write_segments(
            folder / "segments.gpkg",
            [trace_whole(mask, confidence, transform)],
            grid=grid,
            classes=classes,
            scene_id=scene_id,
            provenance={},
        )
        names = {"classes": "classes.tif", "confidence": "confidence.tif"}
        write_item(
            folder / "item.json",
            scene_id=scene_id,
            grid=grid,
            classes=classes,
            assets={**names, "segments": "segments.gpkg"},
            properties={"geoseg:key": "k"},
        )
        return mask

    def polygons(self, name: str = "merged.gpkg") -> gpd.GeoDataFrame:
        return gpd.read_file(self.out / name, layer="segments")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "out" / ".geoseg").mkdir(parents=True)
    (tmp_path / "out" / ".geoseg" / "root").write_text(str(tmp_path))
    return Run(tmp_path / "out")


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        pixels: np.ndarray = dataset.read(1)
    return pixels


def test_polygons_of_all_scenes_are_one_indexed_and_styled_layer(run: Run) -> None:
    for number, name in enumerate(["b", "2024/a", "c"]):
        run.add(name, (number * 80, 0), seed=number)
    result = geoseg("merge", run.out)
    assert result.exit_code == 0, result.output
    merged = run.polygons()
    parts = [run.polygons(f"{name}/segments.gpkg") for name in ("2024/a", "b", "c")]
    assert merged.crs == UTM_31
    assert list(merged.scene_id.unique()) == ["2024/a", "b", "c"]
    assert len(merged) == sum(map(len, parts))
    for part in parts:
        rows = merged[merged.scene_id == part.scene_id[0]].reset_index(drop=True)
        assert rows.drop(columns="geometry").equals(part.drop(columns="geometry"))
        assert (shapely.to_wkb(rows.geometry) == shapely.to_wkb(part.geometry)).all()
    with closing(sqlite3.connect(run.out / "merged.gpkg")) as file:
        [indexed] = file.execute("SELECT count(*) FROM rtree_segments_geom")
        [style] = file.execute("SELECT styleQML FROM layer_styles WHERE useAsDefault")
    assert indexed == (len(merged),)
    assert all(info.name.split()[0] in style[0] for info in CLASSES)
    assert f"{len(merged)} polygons of 3 scenes" in result.stdout
    hidden = [path.name for path in run.out.iterdir() if path.name.startswith(".")]
    assert hidden == [".geoseg"]


def test_masks_are_one_raster_with_names_and_colours(run: Run) -> None:
    one = run.add("x/a")
    # 0.3 of a pixel beside the pixels of the first, and over its right rim.
    two = run.add("b", (60.6, 10.6), seed=1, hole=True)
    assert geoseg("merge", run.out, "--no-polygons").exit_code == 0
    assert not (run.out / "merged.gpkg").exists()
    with rasterio.open(run.out / "classes.vrt") as dataset:
        mosaic = dataset.read(1)
        assert dataset.crs == UTM_31
        assert dataset.nodata == NODATA
        legend = read_legend(dataset, 1)
        assert dataset.bounds.left == pytest.approx(500_000, abs=1)
    assert legend.names == {info.id: info.name for info in CLASSES}
    assert legend.colors == {info.id: info.color for info in CLASSES}
    # Sorted by id, so x/a lies on top of b; b lies 30 columns right, 5 rows up.
    want = np.full((35, 70), NODATA, np.uint8)
    want[0:30, 30:70] = two
    want[5:35, 0:40] = one
    assert (mosaic == want).all()
    assert set(np.unique(read(run.out / "confidence.vrt"))) == {50, 51, NODATA}


def test_nodata_of_one_scene_hides_nothing_of_another(run: Run) -> None:
    run.add("a")
    two = run.add("b", seed=1, hole=True)
    geoseg("merge", run.out)
    mosaic = read(run.out / "classes.vrt")
    below = read(run.out / "a" / "classes.tif")
    assert (mosaic == np.where(two == NODATA, below, two)).all()


def test_a_merged_run_can_be_moved_and_holds_no_scene(run: Run, tmp_path: Path) -> None:
    mask = run.add("a")
    geoseg("merge", run.out)
    moved = tmp_path / "elsewhere"
    shutil.move(run.out, moved)
    assert (read(moved / "classes.vrt") == mask).all()
    write_mask(tmp_path / "scene.tif", mask, Grid(30, 40, Affine.scale(2, -2), None))
    files, _ = find_scenes([tmp_path])
    assert [file.scene_id for file in files] == ["scene"]


def test_results_may_go_to_another_folder(run: Run, tmp_path: Path) -> None:
    mask = run.add("a")
    assert geoseg("merge", run.out, "-o", tmp_path / "d e" / "l").exit_code == 0
    files = {path.name for path in (tmp_path / "d e" / "l").iterdir()}
    rasters = {"classes.vrt", "confidence.vrt", "classes.qml", "confidence.qml"}
    assert files == {"merged.gpkg", *rasters}
    assert (read(tmp_path / "d e" / "l" / "classes.vrt") == mask).all()


def test_scenes_of_several_crs_need_one(run: Run) -> None:
    run.add("a")
    run.add("b", crs=UTM_32, seed=1)
    result = geoseg("merge", run.out)
    assert result.exit_code == 2
    assert "2 CRS (EPSG:32631: a; EPSG:32632: b)" in result.stderr
    assert "--crs" in result.stderr
    assert not (run.out / "merged.gpkg").exists()
    (run.out / "classes.vrt").write_text("of an earlier call")
    result = geoseg("merge", run.out, "--crs", "EPSG:3035")
    assert result.exit_code == 0, result.output
    assert "no classes.vrt: scenes are of 2 CRS" in result.stderr
    assert not (run.out / MERGED_CLASSES).exists()
    merged = run.polygons()
    assert merged.crs == "EPSG:3035"
    for name in "ab":
        part = run.polygons(f"{name}/segments.gpkg")
        rows = merged[merged.scene_id == name]
        assert (rows.area_m2.to_numpy() == part.area_m2.to_numpy()).all()
        # EPSG:3035 keeps areas, so those of the plane are those of the ground.
        assert rows.area.sum() == pytest.approx(part.area_m2.sum(), rel=1e-4)
        assert shapely.coverage_is_valid(rows.geometry.array)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"size": 3.0}, "EPSG:32631 at 2: a; EPSG:32631 at 3: b"),
        ({"turn": 0.5}, "b are rotated"),
    ],
)
def test_rasters_that_do_not_fit_are_left_out_with_the_reason(
    run: Run, second: dict[str, float], message: str
) -> None:
    run.add("a")
    run.add("b", **second)  # type: ignore[arg-type]  # one of its numbers
    result = geoseg("merge", run.out)
    assert result.exit_code == 0
    assert message in result.stderr
    assert {path.suffix for path in run.out.iterdir()} == {"", ".gpkg"}
    refused = geoseg("merge", run.out, "--no-polygons")
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_many_kinds_of_scenes_are_counted_named_in_part_and_compared_with_few(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.add("s00")
    template = json.loads((run.out / "s00" / "item.json").read_text())
    for number in range(1, 40):
        name = f"s{number:02d}"
        shutil.copytree(run.out / "s00", run.out / name)
        size, properties = 2.0 + number, dict(template["properties"])
        properties["proj:transform"] = [size, 0, 5e5, 0, -size, 5.8e6]
        crs = pyproj.CRS(32600 + number).to_wkt("WKT2_2019")
        properties["proj:wkt2"] = crs
        item = {**template, "id": name, "properties": properties}
        (run.out / name / "item.json").write_text(json.dumps(item))
    compared: list[object] = []

    def counted(one: str | None, other: str | None) -> bool:
        compared.append(one)
        return same_crs(one, other)

    monkeypatch.setattr(merge, "same_crs", counted)
    result = geoseg("merge", run.out)
    assert result.exit_code == 2
    # Zone 31 of the first scene comes again, among those beyond the first ten kinds.
    assert (
        "scenes are of more than 10 CRS (EPSG:32631: s00, s31; EPSG:32601: s01; "
        in (result.stderr)
    )
    assert "EPSG:32602: s02; ...); choose one" in result.stderr
    assert len(compared) <= 40 * 10
    result = geoseg("merge", run.out, "--no-polygons")
    assert "more than 10 CRS or pixel sizes (EPSG:32631 at 2: s00; " in result.stderr
    assert "s05" not in result.stderr


def test_scenes_without_a_crs_are_merged_among_themselves_only(run: Run) -> None:
    run.add("a", crs=None)
    run.add("b", (80, 0), crs=None)
    assert geoseg("merge", run.out).exit_code == 0
    assert run.polygons().crs is None
    result = geoseg("merge", run.out, "--crs", "EPSG:3035")
    assert result.exit_code == 2
    assert "a, b without a CRS" in result.stderr


def test_classes_of_two_models_are_refused(run: Run) -> None:
    run.add("a")
    other = (ClassInfo(1, "ice", (1, 2, 3)), *CLASSES[1:])
    run.add("b", classes=other)
    result = geoseg("merge", run.out)
    assert result.exit_code == 2
    assert "class 1 is 'water' in a and 'ice' in b" in result.stderr


def test_a_broken_scene_is_named_and_leaves_the_older_file(run: Run) -> None:
    run.add("a")
    geoseg("merge", run.out)
    before = (run.out / "merged.gpkg").read_bytes()
    run.add("b")
    (run.out / "b" / "segments.gpkg").write_bytes(b"SQLite format 3\0" + bytes(4000))
    result = geoseg("merge", run.out)
    assert result.exit_code == 1
    assert "polygons of b cannot be merged" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (run.out / "merged.gpkg").read_bytes() == before


@pytest.mark.parametrize("name", ["classes.tif", "segments.gpkg"])
def test_a_scene_that_lost_a_file_is_refused(run: Run, name: str) -> None:
    run.add("a")
    (run.out / "a" / name).unlink()
    result = geoseg("merge", run.out)
    assert result.exit_code == 2
    assert f"a/{name} is missing" in result.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"assets": {}}, "the item of a is not as geoseg writes it"),
        (None, "holds no finished scene"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    run: Run, damage: dict[str, object] | None, message: str
) -> None:
    run.add("a")
    item = run.out / "a" / "item.json"
    if damage is None:
        item.unlink()
    else:
        item.write_text(json.dumps({**json.loads(item.read_text()), **damage}))
    result = geoseg("merge", run.out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert geoseg("merge", run.out, "--crs", "EPSG:1").exit_code == 2
    assert "is no folder" in geoseg("merge", run.out / "none").stderr
