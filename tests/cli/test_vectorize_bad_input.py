"""What `vectorize` refuses, in one line that says what to do."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from class_rasters import class_mask, rows_of, write_classes
from commands import geoseg, refused
from rasters import NORTH_UP, write_raster

from geoseg.errors import UsageError
from geoseg.pipelines.vectorize import VectorizeConfig, run
from geoseg.types import NODATA


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "classes.tif", class_mask(40))


def test_pixels_that_are_no_whole_numbers(tmp_path: Path) -> None:
    values = np.zeros((5, 5), np.float32)
    message = refused(write_raster(tmp_path / "c.tif", values), code=1)
    assert "float32 in band 1, and class ids are whole numbers" in message
    assert "gdal_translate -ot Byte" in message


def test_several_bands(tmp_path: Path) -> None:
    values = np.zeros((3, 5, 5), np.uint8)
    path = write_raster(tmp_path / "c.tif", values)
    message = refused(path)
    assert "has 3 bands, and classes are in one; choose it with --band" in message
    assert "1 (red, uint8), 2 (green, uint8), 3 (blue, uint8)" in message
    assert "no band 4; choose one of: 1 (red" in refused(path, "--band", 4)


def test_values_that_are_no_classes(tmp_path: Path) -> None:
    heights = np.arange(10_000, dtype=np.int32).reshape(100, 100)
    message = refused(write_raster(tmp_path / "c.tif", heights), code=1)
    assert "over 4096 different values" in message
    assert "reclassify it first" in message
    many = np.arange(256, dtype=np.uint8).reshape(16, 16)
    message = refused(write_raster(tmp_path / "d.tif", many))
    assert "there are 256 classes, more than 254; merge or drop some" in message


def test_areas_without_a_crs(tmp_path: Path) -> None:
    path = write_classes(tmp_path / "c.tif", class_mask(20), crs=None)
    message = refused(path, "--min-area", 3, code=1)
    assert "areas are unknown without a CRS" in message
    assert "gdal_edit -a_srs" in message


def test_a_crs_that_proj_cannot_use(tmp_path: Path) -> None:
    crs = (
        'PROJCS["odd",GEOGCS["g",DATUM["d",SPHEROID["s",6378137,0]],'
        'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
        'PROJECTION["No_Such_Projection"],UNIT["metre",1]]'
    )
    path = write_classes(tmp_path / "c.tif", class_mask(20), crs=crs)
    message = refused(path, code=1)
    assert "areas cannot be measured in the CRS" in message
    assert "gdal_edit -a_srs" in message
    assert list(tmp_path.iterdir()) == [path]


def test_a_class_to_exclude_that_is_not_there(raster: Path) -> None:
    message = refused(raster, "--exclude", "forest")
    assert "no class 'forest' to exclude; classes are: 0 (class 0), 1 (class" in message
    assert "no class '9'" in refused(raster, "--exclude", "9")


@pytest.mark.parametrize(
    ("shape", "crs", "transform", "message"),
    [
        ((40, 41), "EPSG:32631", NORTH_UP, "40 x 41 pixels instead of 40 x 40 pixels"),
        ((40, 40), "EPSG:32632", NORTH_UP, "another CRS"),
        ((40, 40), None, NORTH_UP, "another CRS"),
        (
            (40, 40),
            "EPSG:32631",
            NORTH_UP @ Affine.translation(0.5, 0),
            "pixels that lie elsewhere",
        ),
    ],
)
def test_confidence_of_another_grid(
    raster: Path,
    shape: tuple[int, int],
    crs: str | None,
    transform: Affine,
    message: str,
) -> None:
    percents = np.zeros(shape, np.uint8)
    other = write_raster(
        raster.with_name("p.tif"), percents, crs=crs, transform=transform
    )
    told = refused(raster, "--confidence", other)
    assert "is not on the grid of" in told
    assert message in told
    assert "gdalwarp" in told


def test_confidence_of_several_bands(raster: Path, tmp_path: Path) -> None:
    path = write_raster(tmp_path / "c.tif", np.zeros((3, 40, 40), np.uint8))
    told = refused(raster, "--confidence", path)
    assert "percents are in one" in told
    assert "--band" not in told, "that is for the classes"


def test_confidence_that_is_no_percent(raster: Path) -> None:
    probability = np.zeros((40, 40), np.float32)
    path = write_raster(raster.with_name("p.tif"), probability)
    message = refused(raster, "--confidence", path, code=1)
    assert "is float32, and percents are uint8, 0 to 100" in message
    assert "-scale 0 1 0 100" in message
    stretched = np.full((40, 40), 255, np.uint8)
    path = write_raster(raster.with_name("q.tif"), stretched)
    message = refused(raster, "--confidence", path, code=1)
    assert "has values above 100 where there are classes" in message


@pytest.mark.parametrize("threads", [1, 2])
def test_confidence_that_is_unknown_within_classes(
    raster: Path, tmp_path: Path, threads: int
) -> None:
    mask = class_mask(40)
    percents = np.full(mask.shape, 50, np.uint8)
    percents[mask == NODATA] = 7
    hidden = np.ones(mask.shape, np.bool_)
    hidden[20:25, 30:33] = False
    lacking = int((~hidden & (mask != NODATA)).sum())
    assert lacking
    percents[~hidden] = 7
    for name, given in (
        ("value", {"nodata": 7}),
        ("alpha", {"alpha": hidden}),
        ("mask", {"mask": hidden}),
        ("list", {"tags": {"NODATA_VALUES": "7"}}),
    ):
        path = write_raster(tmp_path / f"{name}.tif", percents, **given)
        message = refused(raster, "--confidence", path, "--threads", threads, code=1)
        assert f"{path} is nodata for {lacking:,} pixels of classes" in message
        assert "fill it" in message
    assert not (tmp_path / "classes.gpkg").exists()


def test_confidence_that_is_unknown_elsewhere_is_fine(
    raster: Path, tmp_path: Path
) -> None:
    """Where there are no classes, or none that get polygons."""
    mask = class_mask(40)
    percents = np.where((mask == NODATA) | (mask == 2), 7, 50).astype(np.uint8)
    path = write_raster(tmp_path / "p.tif", percents, nodata=7)
    given = ["--confidence", path, "--exclude", 2]
    assert geoseg("vectorize", raster, *given).exit_code == 0
    assert {row[3] for row in rows_of(tmp_path / "classes.gpkg")} == {50.0}


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_names_of_no_file(raster: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "o.gpkg"
    for given in ([name], [name, "-o", out], [raster, "-o", out, "--confidence", name]):
        assert f"{name!r} names no file; give the file of the" in refused(*given)


def test_null_characters_in_names_of_files(raster: Path, tmp_path: Path) -> None:
    """No shell can pass them, but a program can."""
    whole = VectorizeConfig(str(raster), tmp_path / "o.gpkg")
    for config in (
        replace(whole, raster="a\0"),
        replace(whole, confidence="\0"),
        replace(whole, classes=Path("a\0")),
        replace(whole, out=tmp_path / "a\0.gpkg"),
    ):
        with pytest.raises(UsageError, match=r"null character|cannot write to it"):
            run(config)
    assert list(tmp_path.iterdir()) == [raster]


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    missing = refused(tmp_path / "no.tif", "-o", tmp_path / "o.gpkg", code=1)
    assert "does not exist; check the path" in missing
    (tmp_path / "text.tif").write_text("no raster")
    message = refused(tmp_path / "text.tif", "-o", tmp_path / "o.gpkg", code=1)
    assert "cannot be read" in message


def test_nodata_that_no_pixel_can_have(raster: Path) -> None:
    assert "nodata 256 is no value of uint8" in refused(raster, "--nodata", 256)


@pytest.mark.parametrize(
    "options", [["--min-area", "-1"], ["--simplify", "-1"], ["--threads", "0"]]
)
def test_numbers_out_of_range(raster: Path, options: list[str]) -> None:
    assert geoseg("vectorize", raster, *options).exit_code == 2


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none(raster: Path, value: str) -> None:
    assert "use 0, or a number above it" in refused(raster, "--simplify", value)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_raster_cut_short_leaves_nothing(tmp_path: Path, threads: int) -> None:
    mask = np.random.default_rng(0).integers(0, 4, (3000, 2000)).astype(np.uint8)
    path = write_classes(tmp_path / "c.tif", mask)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    (tmp_path / "t.csv").write_text("id\n0\n1\n2\n3\n")
    given = ["--classes", tmp_path / "t.csv", "--threads", threads]
    message = refused(path, *given, code=1)
    assert "cannot be read" in message
    assert {file.name for file in tmp_path.iterdir()} == {"c.tif", "t.csv"}


def interrupted(path: Path, number: signal.Signals) -> tuple[int, str]:
    """Run until polygons are traced, send a signal, and return code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "geoseg", "vectorize", str(path)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not list(path.parent.glob(".c.gpkg.geoseg-work-*/*.gpkg")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def write_noise(path: Path) -> Path:
    """Write what takes seconds to trace."""
    mask = np.random.default_rng(0).integers(0, 4, (4000, 4000)).astype(np.uint8)
    return write_classes(path, mask, nodata=NODATA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    found, told = interrupted(write_noise(tmp_path / "c.tif"), number)
    assert found == code, told
    assert "Error: interrupted; polygons appear whole or not at all" in told
    assert [file.name for file in tmp_path.iterdir()] == ["c.tif"]


@pytest.mark.slow
def test_what_a_killed_run_leaves_the_next_one_removes(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "c.tif")
    code, _ = interrupted(path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "a folder of temporary files"
    write_classes(path, class_mask(40))
    assert geoseg("vectorize", path).exit_code == 0
    assert {file.name for file in tmp_path.iterdir()} == {"c.tif", "c.gpkg"}
