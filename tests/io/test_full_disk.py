from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from class_masks import trace_whole
from rasters import CLASSES, NORTH_UP, UTM

from geoseg.errors import FileOutputError
from geoseg.grid import Grid
from geoseg.io.vector import SUFFIXES, write_segments
from geoseg.vectorize import PolygonBatch

SIDE = 120
STEPS = 12


def batch_of_noise() -> PolygonBatch:
    ids = np.array([info.id for info in CLASSES], np.uint8)
    rng = np.random.default_rng(0)
    return trace_whole(ids[rng.integers(0, 3, (SIDE, SIDE))], None, NORTH_UP)


def write(path: Path, batches: Iterator[PolygonBatch]) -> None:
    import pyproj

    write_segments(
        path,
        batches,
        grid=Grid(SIDE, SIDE, NORTH_UP, pyproj.CRS(UTM).to_wkt()),
        classes=CLASSES,
        scene_id="a",
        provenance={},
    )


def error_of(path: Path, batch: PolygonBatch) -> str | None:
    try:
        write(path, iter([batch]))
    except FileOutputError as error:
        return str(error)
    return None


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fills_at_any_point_leaves_nothing(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """GDAL says nothing of some failures: an index is missing, and the file there."""
    batch = batch_of_noise()
    whole = tmp_path / "whole"
    whole.mkdir()
    write(whole / f"segments{suffix}", iter([batch]))
    size, names = used(whole), sorted(path.name for path in whole.iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    # The index of FlatGeobuf takes twice the room while it is made.
    most = 2.5 * size if suffix == ".fgb" else 1.3 * size
    failed = 0
    for room in np.linspace(0.05 * size, most, STEPS):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={int(room)}", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no tmpfs can be mounted here")
        try:
            path = disk / f"segments{suffix}"
            message = error_of(path, batch)
            if message is not None:
                failed += 1
                assert message.startswith(f"{path} cannot be written: ")
                assert message.endswith("; make room on its disk, or write elsewhere")
                assert "geoseg-tmp" not in message
                assert "SELECT" not in message
                assert "TABLE" not in message
                assert "no such table" not in message
                assert len(message) < 300 + len(str(path))
                assert list(disk.iterdir()) == []
            else:
                assert sorted(path.name for path in disk.iterdir()) == names
                assert path.stat().st_size >= 0.99 * size - 20_000
        finally:
            # Busy if an error kept a file open, whose room would not come back.
            subprocess.run(["umount", str(disk)], check=True)
    assert 0 < failed < STEPS, "too small at first, large enough at last"
    assert capfd.readouterr() == ("", ""), "the error says it all"


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_one_error(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from test_full_disk import SUFFIXES, batch_of_noise, error_of\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "for suffix in SUFFIXES:\n"
        "    print(error_of(Path(sys.argv[1] + suffix), batch_of_noise()))\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:0] = {folders}\n{program}"
    command = [sys.executable, "-c", program, str(tmp_path / "segments")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for suffix, line in zip(SUFFIXES, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{tmp_path / 'segments'}{suffix} cannot be written: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_older_file_survives_and_a_failure_of_the_batches_stays_theirs(
    tmp_path: Path, suffix: str
) -> None:
    path, batch = tmp_path / f"segments{suffix}", batch_of_noise()
    write(path, iter([batch]))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def batches() -> Iterator[PolygonBatch]:
        yield batch
        raise OSError(28, "No space left on device", "the spill folder")

    with pytest.raises(OSError, match="the spill folder") as caught:
        write(path, batches())
    assert not isinstance(caught.value, FileOutputError)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileOutputError, match=r"cannot be written: .*write elsewhere"):
        write(tmp_path / "file" / f"segments{suffix}", iter([batch_of_noise()]))
