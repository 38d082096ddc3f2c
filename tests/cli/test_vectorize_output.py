"""Where `vectorize` writes, and what it never replaces there."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from class_rasters import class_mask, rows_of, write_classes
from commands import geoseg, refused
from rasterio.vrt import WarpedVRT

from geoseg.io.style import shared_qml
from geoseg.io.style_file import write_style
from geoseg.io.vector import SUFFIXES
from geoseg.types import ClassInfo


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "classes.tif", class_mask(40))


def test_where_polygons_cannot_go(raster: Path, tmp_path: Path) -> None:
    assert "end -o in .gpkg, .fgb or .parquet" in refused(raster, "-o", "out.shp")
    assert "end -o in" in refused(raster, "-o", tmp_path / "out")
    missing = tmp_path / "no" / "such" / "out.gpkg"
    assert f"there is no folder {missing.parent}" in refused(raster, "-o", missing)
    (tmp_path / "d.gpkg").mkdir()
    folder = refused(raster, "-o", tmp_path / "d.gpkg", "--overwrite")
    assert "is a folder; name a file" in folder
    assert not missing.parent.exists()


def test_a_style_is_replaced_on_request_and_a_users_never(
    raster: Path, tmp_path: Path
) -> None:
    style = tmp_path / "out.qml"
    assert geoseg("vectorize", raster, "-o", tmp_path / "out.fgb").exit_code == 0
    own = style.read_bytes()
    message = refused(raster, "-o", tmp_path / "out.parquet")
    assert f"{style} is there already" in message
    table = tmp_path / "t.csv"
    table.write_text("id,name\n0,a\n1,b\n2,c\n3,d\n")
    renamed = ["-o", tmp_path / "out.parquet", "--overwrite", "--classes", table]
    assert geoseg("vectorize", raster, *renamed).exit_code == 0
    assert style.read_bytes() not in (own, b"")
    for users in (b"mine", own.replace(b"class 1", b"sea")):
        style.write_bytes(users)
        for suffix in (".fgb", ".parquet"):
            result = geoseg(
                "vectorize", raster, "-o", tmp_path / f"out{suffix}", "--overwrite"
            )
            assert result.exit_code == 0
            assert result.stderr.count("\n") == 1
            assert f"{style} is not of geoseg and is kept" in result.stderr
            assert style.read_bytes() == users


def test_the_style_of_a_class_mask_is_for_polygons_beside_it_and_stays(
    raster: Path, tmp_path: Path
) -> None:
    classes = [ClassInfo(i, f"class {i}", (i, 0, 0)) for i in range(4)]
    write_style(raster, shared_qml(classes))
    style = raster.with_suffix(".qml")
    own = style.read_bytes()
    for suffix in (".fgb", ".parquet"):
        out = raster.with_suffix(suffix)
        for given in ([], ["--overwrite", "--exclude", "1"]):
            result = geoseg("vectorize", raster, "-o", out, *given)
            assert result.exit_code == 0
            assert style.read_bytes() == own, "a mask's legend holds all of its classes"


def test_a_folder_in_place_of_the_style_stays(raster: Path, tmp_path: Path) -> None:
    (tmp_path / "out.qml").mkdir()
    result = geoseg("vectorize", raster, "-o", tmp_path / "out.fgb")
    assert result.exit_code == 0
    assert "is not of geoseg and is kept" in result.stderr
    assert len(rows_of(tmp_path / "out.fgb")) > 5


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_place_of_the_style_stays(
    raster: Path, tmp_path: Path, *, there: bool
) -> None:
    style, shared = tmp_path / "out.qml", tmp_path / "shared.qml"
    if there:
        assert geoseg("vectorize", raster, "-o", tmp_path / "shared.fgb").exit_code == 0
    before = shared.read_bytes() if there else None
    style.symlink_to(shared)
    table = tmp_path / "t.csv"
    table.write_text("id,name\n0,a\n1,b\n2,c\n3,d\n")
    for given in ([], ["--overwrite", "--classes", table]):
        result = geoseg("vectorize", raster, "-o", tmp_path / "out.fgb", *given)
        assert result.exit_code == 0
        assert f"{style} is not of geoseg and is kept" in result.stderr
        assert style.readlink() == shared
        assert (shared.read_bytes() if shared.exists() else None) == before


def test_inputs_are_never_replaced(raster: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gpkg"
    link.symlink_to(raster)
    before = raster.read_bytes()
    message = refused(raster, "-o", link, "--overwrite")
    assert "is the raster itself" in message
    source = tmp_path / "source.gpkg"
    source.write_bytes(before)
    with rasterio.open(source) as dataset, WarpedVRT(dataset) as warped:
        rasterio.shutil.copy(warped, tmp_path / "view.vrt", driver="VRT")
    message = refused(tmp_path / "view.vrt", "-o", source, "--overwrite")
    assert f"is read from {source}" in message
    assert source.read_bytes() == before
    assert raster.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        "nested.vrt",
        "table.vrt",
        "/vsizip/{archive}/nested.vrt",
        "GPKG:{source}:source",
        "vrt://{source}?bands=1",
        "/vsisubfile/0_10000000,{source}",
        "/vsicached?file={source}",
    ],
)
def test_sources_are_found_behind_any_name(
    raster: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, archive = tmp_path / "source.gpkg", tmp_path / "views.zip"
    rasterio.shutil.copy(raster, source, driver="GPKG")
    write_view("view.vrt", str(source))
    write_view("nested.vrt", str(tmp_path / "view.vrt"))
    write_view("table.vrt", f"GPKG:{source}:source")
    with zipfile.ZipFile(archive, "w") as file:
        file.write("nested.vrt")
    before = source.read_bytes()
    given = name.format(source=source, archive=archive)
    message = refused(given, "-o", source, "--overwrite")
    assert f"is read from {source}; choose another -o" in message
    assert source.read_bytes() == before


def test_an_archive_is_not_replaced_by_polygons_of_what_it_holds(
    raster: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.gpkg"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(raster, "classes.tif")
    before = archive.read_bytes()
    name = f"/vsizip/{{{archive}}}/classes.tif"
    assert "is read from" in refused(name, "-o", archive, "--overwrite")
    assert archive.read_bytes() == before


def write_view(path: str, source: str) -> None:
    """Write a VRT of a raster, whichever way that is named."""
    with rasterio.open(source) as dataset, WarpedVRT(dataset) as warped:
        rasterio.shutil.copy(warped, path, driver="VRT")


@pytest.mark.parametrize("name", ["a\nb.gpkg", "\udcff.gpkg", "a\tb.parquet"])
def test_names_that_libraries_cannot_write_to(
    raster: Path, tmp_path: Path, name: str
) -> None:
    message = refused(raster, "-o", tmp_path / name)
    assert "libraries cannot write to it; choose another -o" in message
    assert list(tmp_path.iterdir()) == [raster]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["a!b", "!", "a;b", "p!q/out", "p;q/a!b;c"])
def test_names_that_libraries_read_in_their_own_way(
    raster: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    out = tmp_path / "folder" / f"{name}{suffix}"
    out.parent.mkdir(parents=True)
    result = geoseg("vectorize", raster, "-o", out)
    assert result.exit_code == 0, result.stderr
    style = [] if suffix == ".gpkg" else [out.with_suffix(".qml")]
    assert sorted(out.parent.iterdir()) == sorted([out, *style])
    expected = tmp_path / f"plain{suffix}"
    assert geoseg("vectorize", raster, "-o", expected).exit_code == 0
    assert out.read_bytes() == expected.read_bytes()


def test_a_link_stays_one(raster: Path, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    link, target = tmp_path / "link.fgb", folder / "target.fgb"
    link.symlink_to(target)  # to nothing, as yet
    for given in ([], ["--overwrite"]):
        assert geoseg("vectorize", raster, "-o", link, *given).exit_code == 0
        assert link.readlink() == target
        assert {path.name for path in folder.iterdir()} == {"target.fgb", "target.qml"}
    assert f"{target} is there already" in refused(raster, "-o", link)
    other = tmp_path / "other.gpkg"
    other.symlink_to(target)
    assert "whose name ends otherwise" in refused(raster, "-o", other, "--overwrite")
    lost = tmp_path / "lost.gpkg"
    lost.symlink_to(tmp_path / "gone" / "out.gpkg")
    assert f"there is no folder {tmp_path / 'gone'}" in refused(raster, "-o", lost)


def test_what_is_there_is_replaced_on_request_only(
    raster: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.gpkg"
    out.write_text("mine")
    message = refused(raster, "-o", out)
    assert "is there already; pass --overwrite" in message
    assert out.read_text() == "mine"
    assert geoseg("vectorize", raster, "-o", out, "--overwrite").exit_code == 0
    assert len(rows_of(out)) > 5


def test_a_folder_that_cannot_be_written_to(raster: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(folder, os.W_OK):
        folder = Path("/proc")  # to root every folder of a disk is open
    message = refused(raster, "-o", folder / "out.gpkg", code=2 if os.getuid() else 1)
    assert "cannot be written" in message
