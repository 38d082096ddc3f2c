from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import rasterio.features
import shapely
from class_masks import blobs, trace_whole
from rasters import CLASSES, GRIDS, NORTH_UP, UTM

from geoseg.errors import FileOutputError, OutputError
from geoseg.grid import Grid
from geoseg.io import geoparquet, segment_table, vector
from geoseg.io.style import qml
from geoseg.io.style_file import marked
from geoseg.io.vector import SUFFIXES, ClassTotal, write_segments
from geoseg.vectorize import PolygonBatch

COLUMNS = [
    ("class_id", "int32"),
    ("class_name", "object"),
    ("area_m2", "float64"),
    ("pixels", "int64"),
    ("confidence_mean", "float64"),
    ("scene_id", "object"),
]
SIDE = 40


def mask_of_classes() -> Any:  # noqa: ANN401 (uint8, shape (SIDE, SIDE))
    mask = np.array([info.id for info in CLASSES], np.uint8)[
        blobs(SIDE, len(CLASSES), sigma=1.5)
    ]
    mask[:5, :9] = 255
    return mask


def grid_of(name: str | None) -> Grid:
    crs, transform = (None, NORTH_UP) if name is None else GRIDS[name]
    return Grid(SIDE, SIDE, transform, crs and pyproj.CRS(crs).to_wkt())


def write(path: Path, grid: Grid, *batches: PolygonBatch) -> dict[int, ClassTotal]:
    return write_segments(
        path,
        iter(batches),
        grid=grid,
        classes=CLASSES,
        scene_id="a/b",
        provenance={"GEOSEG_MODEL": "toy <&> é"},
    )


def trace(grid: Grid) -> PolygonBatch:
    mask = mask_of_classes()
    confidence = np.where(mask == 255, 255, mask * 10).astype(np.uint8)
    return trace_whole(mask, confidence, grid.transform)


def load(path: Path) -> gpd.GeoDataFrame:
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    return gpd.read_file(path, layer="segments")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", [*GRIDS, None])
def test_every_format_holds_the_same(
    tmp_path: Path, suffix: str, name: str | None
) -> None:
    grid = grid_of(name)
    batch = trace(grid)
    path = tmp_path / f"some.name{suffix}"
    totals = write(path, grid, batch)
    frame = load(path)
    assert frame.crs == (grid.crs and pyproj.CRS(grid.crs))
    fields = [column for column in frame.columns if column != "geometry"]
    types = [str(frame[column].dtype).replace("str", "object") for column in fields]
    assert list(zip(fields, types, strict=True)) == COLUMNS
    if suffix != ".fgb":  # Its index puts neighbours together.
        assert (frame.pixels == batch.pixels).all()
    assert sorted(frame.pixels) == sorted(batch.pixels)
    assert (frame.confidence_mean == frame.class_id * 10).all()
    assert (frame.area_m2.isna() if name is None else frame.area_m2 > 0).all()
    assert set(frame.class_name) == {info.name for info in CLASSES}
    burnt = rasterio.features.rasterize(
        zip(frame.geometry, frame.class_id, strict=True),
        out_shape=grid.shape,
        transform=grid.transform,
        fill=255,
        dtype="uint8",
    )
    assert (burnt == mask_of_classes()).all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    for info in CLASSES:
        mine, total = frame[frame.class_id == info.id], totals[info.id]
        assert (total.polygons, total.pixels) == (len(mine), mine.pixels.sum())
        if name is not None:
            assert total.area_m2 == pytest.approx(mine.area_m2.sum(), rel=1e-12)
    beside = [] if suffix == ".gpkg" else [path.with_suffix(".qml")]
    assert sorted(tmp_path.iterdir()) == sorted([path, *beside])
    for style in beside:
        assert style.read_text(encoding="utf-8") == marked(qml(CLASSES))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_layer_has_columns_crs_style_and_provenance(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"empty{suffix}"
    totals = write(path, grid_of("north-up"), PolygonBatch.empty())
    assert set(totals.values()) == {ClassTotal(0, 0, 0.0)}
    assert path.with_suffix(".qml").exists() == (suffix != ".gpkg")
    if suffix == ".parquet":
        frame = load(path)
        assert (len(frame), frame.crs) == (0, pyproj.CRS(UTM))
        assert [name for name in frame.columns if name != "geometry"] == [
            name for name, _ in COLUMNS
        ]
        metadata = pq.read_metadata(path).metadata
        (column,) = json.loads(metadata[b"geo"])["columns"].values()
        assert "bbox" not in column
        assert metadata[b"GEOSEG_MODEL"].decode() == "toy <&> é"
        return
    info = pyogrio.read_info(path, layer="segments", force_feature_count=True)
    assert (info["features"], info["crs"]) == (0, UTM)
    assert list(zip(info["fields"], info["dtypes"], strict=True)) == COLUMNS
    assert info["layer_metadata"] == {"GEOSEG_MODEL": "toy <&> é"}


@pytest.mark.parametrize("name", ["north-up", "degrees", None])
def test_geoparquet_tells_what_its_specification_asks(
    tmp_path: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_table, "_ROWS", 10)
    monkeypatch.setattr(geoparquet, "_GROUP_ROWS", 20)
    grid, path = grid_of(name), tmp_path / "segments.parquet"
    batch = trace(grid)
    write(path, grid, batch)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == -(-len(batch) // 20) > 1
    geo = json.loads(file.metadata.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    (column,) = geo["columns"].values()
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    if name is None:
        assert column["crs"] is None, "left out, it would be longitude and latitude"
    else:
        assert pyproj.CRS.from_json_dict(column["crs"]) == pyproj.CRS(grid.crs)
    bounds = shapely.bounds(batch.geometries())
    around = shapely.total_bounds(batch.geometries())
    assert column["bbox"] == around.tolist()
    sides = ("xmin", "ymin", "xmax", "ymax")
    assert column["covering"]["bbox"] == {side: ["bbox", side] for side in sides}
    boxes = file.read(["bbox"])["bbox"].combine_chunks().flatten()
    assert (np.column_stack(boxes) == bounds).all()
    # What GeoPandas makes of the covering: it reads only what lies in a window.
    corner = (bounds[0][0], bounds[0][1], bounds[0][0], bounds[0][1])
    some = gpd.read_parquet(path, bbox=corner)
    assert 0 < len(some) < len(batch)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_libraries_take_for_an_archive(
    tmp_path: Path, suffix: str
) -> None:
    """Scenes name folders of `segment`, so any name must do."""
    grid = grid_of("north-up")
    path = tmp_path / "a!b" / "2024;1" / f"segments{suffix}"
    write(path, grid, trace(grid))
    assert path.stat().st_size > 10_000
    assert len(list(path.parent.iterdir())) == (1 if suffix == ".gpkg" else 2)


@pytest.mark.parametrize("bytes_of_a_record", [1 << 25, 5000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_is_the_same_however_batches_are_cut(
    tmp_path: Path,
    suffix: str,
    bytes_of_a_record: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tracer's depend on the number of threads."""
    # Row groups end in the midst of a batch.
    monkeypatch.setattr(geoparquet, "_GROUP_BYTES", 1 << 16)
    monkeypatch.setattr(segment_table, "_BYTES", bytes_of_a_record)
    grid = grid_of("north-up")
    rng = np.random.default_rng(0)
    ids = np.array([info.id for info in CLASSES], np.uint8)
    noise = ids[rng.integers(0, 3, (100, 100))]
    whole = trace_whole(noise, None, grid.transform)
    files = []
    for cut in (len(whole), 700, 512, 33):
        path = tmp_path / f"{cut}" / f"segments{suffix}"
        pieces = [whole.slice(i, i + cut) for i in range(0, len(whole), cut)]
        write(path, grid, *pieces)
        files.append(path.read_bytes())
    assert len(whole) > 3000
    assert len(set(files)) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_a_library_leaves_out_are_an_error(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vector._WRITERS[suffix]

    def stopping(
        path: Path,
        records: Iterator[pa.RecordBatch],
        **options: Any,  # noqa: ANN401
    ) -> None:
        whole(path, itertools.islice(records, 1), **options)

    monkeypatch.setitem(vector._WRITERS, suffix, stopping)
    monkeypatch.setattr(segment_table, "_ROWS", 9)
    grid = grid_of("north-up")
    batch = trace(grid)
    with pytest.raises(FileOutputError, match="took a part of the rows only"):
        write(tmp_path / f"a{suffix}", grid, batch.slice(0, 9), batch.slice(9, 20))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_reader_goes_on_reading_the_old_file(tmp_path: Path, suffix: str) -> None:
    grid, path = grid_of("north-up"), tmp_path / f"segments{suffix}"
    batch = trace(grid)
    write(path, grid, batch)
    program = (
        "import sqlite3, sys; path = sys.argv[1]\n"
        "if path.endswith('gpkg'):\n"
        "    rows = sqlite3.connect(path).execute('SELECT geom FROM segments')\n"
        "    rows.fetchone(); print('open', flush=True); input()\n"
        "    print(1 + len(rows.fetchall()))\n"
        "else:\n"
        "    file = open(path, 'rb'); print('open', flush=True); input()\n"
        "    print(len(file.read()))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        size = path.stat().st_size
        write(path, grid, batch.slice(0, 3))
        answer, _ = reader.communicate("\n")
    assert int(answer) == (len(batch) if suffix == ".gpkg" else size)
    assert len(load(path)) == 3


def test_an_ending_of_no_format_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    asked: list[int] = []

    def batches() -> Iterator[PolygonBatch]:
        asked.append(1)
        yield PolygonBatch.empty()

    for name in ("segments.shp", "segments"):
        with pytest.raises(OutputError, match=r"use \.gpkg, \.fgb, \.parquet"):
            write_segments(
                tmp_path / name,
                batches(),
                grid=grid_of(None),
                classes=CLASSES,
                scene_id="a",
                provenance={},
            )
    assert not asked
    assert not list(tmp_path.iterdir())
    write(tmp_path / "SEGMENTS.GPKG", grid_of(None))


def test_no_option_of_the_process_is_left_behind(tmp_path: Path) -> None:
    name, grid = "OGR_SQLITE_PRAGMA", grid_of(None)
    write(tmp_path / "a.gpkg", grid, trace(grid))
    assert pyogrio.get_gdal_config_option(name) is None
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "b.gpkg", grid, (_ for _ in [1 // 0]))  # type: ignore[arg-type]
    pyogrio.set_gdal_config_options({name: "page_size=8192"})
    try:
        write(tmp_path / "c.gpkg", grid, trace(grid))
        assert pyogrio.get_gdal_config_option(name) == "page_size=8192"
    finally:
        pyogrio.set_gdal_config_options({name: None})


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_ogrinfo_agrees(tmp_path: Path, suffix: str, *, empty: bool) -> None:
    program = shutil.which("ogrinfo")
    if program is None:
        pytest.skip("ogrinfo is absent; apt-get install gdal-bin")
    grid, path = grid_of("north-up"), tmp_path / f"segments{suffix}"
    batch = PolygonBatch.empty() if empty else trace(grid)
    write(path, grid, batch)
    command = [program, "-ro", "-so", "-al", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ERROR" not in done.stderr + done.stdout
    text = done.stdout
    assert f"Feature Count: {len(batch)}\n" in text
    assert "Layer name: segments\nMetadata" in text or suffix == ".fgb"
    for field in (
        "class_id: Integer (",
        "class_name: String (",
        "area_m2: Real (",
        "pixels: Integer64 (",
        "confidence_mean: Real (",
        "scene_id: String (",
    ):
        assert f"\n{field}" in text


@pytest.mark.parametrize("empty", [True, False])
def test_the_geopackage_passes_gdals_validator(tmp_path: Path, *, empty: bool) -> None:
    python = "/usr/bin/python3"
    command = [python, "-m", "osgeo_utils.samples.validate_gpkg"]
    probe = [python, "-c", "import osgeo_utils.samples.validate_gpkg"]
    if (
        not Path(python).exists()
        or subprocess.run(probe, capture_output=True, check=False).returncode
    ):
        pytest.skip("GDAL's validator is absent; apt-get install python3-gdal")
    grid, path = grid_of("north-up"), tmp_path / "segments.gpkg"
    write(path, grid, *([] if empty else [trace(grid)]))
    done = subprocess.run(
        [*command, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
