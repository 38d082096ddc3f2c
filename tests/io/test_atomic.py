from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geoseg.io.atomic import (
    atomic_path,
    publish,
    remove_leftovers,
    share,
    work_folder,
)


def test_a_file_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "new" / "classes.tif"
    with atomic_path(final) as temporary:
        temporary.write_text("whole")
        assert not final.exists()
        assert temporary.parent == final.parent, "a rename must not cross file systems"
        assert temporary.suffix == ".tif"
        assert temporary.name.startswith(".")
    assert final.read_text() == "whole"
    assert list(final.parent.iterdir()) == [final]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    final = tmp_path / "segments.gpkg"
    final.write_text("old")

    def fail() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            for suffix in ("-wal", "-journal", ".aux.xml"):
                temporary.with_name(temporary.name + suffix).write_text("sidecar")
            temporary.with_suffix(".tmp").write_text("overviews")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.json"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [("022", 0o644), ("002", 0o664)])
def test_a_shared_file_has_the_rights_of_any_new_one(
    tmp_path: Path, mask: str, mode: int
) -> None:
    # The umask is a process's own.
    code = """
import os, sys
from pathlib import Path
from geoseg.io.atomic import share
os.umask(int(sys.argv[2], 8))
path = Path(sys.argv[1])
path.touch(0o600)
share(path)
(path.parent / "new").touch()
"""
    path = tmp_path / "shared"
    subprocess.run([sys.executable, "-c", code, path, mask], check=True)
    modes = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes == {mode}


def test_a_disk_without_rights_shares_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "whole"
    path.write_text("whole")
    monkeypatch.setattr(Path, "chmod", refuse)
    share(path)
    assert path.read_text() == "whole"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    with atomic_path(final) as first, atomic_path(final) as second:
        first.write_text("first")
        second.write_text("second")
    assert final.read_text() == "first"
    assert list(tmp_path.iterdir()) == [final]


def test_names_with_glob_characters_are_only_names(tmp_path: Path) -> None:
    bystander = tmp_path / "x.tif"
    bystander.write_text("kept")
    with atomic_path(tmp_path / "[x]*.tif") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "[x]*.tif").read_text() == "whole"
    assert bystander.exists()


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "classes.tif"
    kept = [tmp_path / name for name in (".hidden", "classes.tif.aux.xml")]
    for path in kept:
        path.write_text("kept")
    with atomic_path(final) as temporary:
        leftover = temporary.with_name(temporary.name + ".aux.xml")
        leftover.write_text("of a killed run")
        temporary.write_text("whole")
        copy = tmp_path / temporary.name
        publish(copy, tmp_path / "elsewhere")
        copy.write_text("of a killed run")
        remove_leftovers(tmp_path)
        assert not leftover.exists()
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, final, tmp_path / "elsewhere"])


HOLDING = """
import sys
from pathlib import Path
from geoseg.io.atomic import work_folder

with work_folder(Path(sys.argv[1])) as folder:
    (folder / "spill").write_text("temporary")
    print(folder, flush=True)
    input()
"""


def holding(final: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that needs a work folder until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(final)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().rstrip())


def test_work_folders_of_the_dead_are_removed_and_those_of_the_living_stay(
    tmp_path: Path,
) -> None:
    final, other = tmp_path / "a[1].gpkg", tmp_path / "a[1].gpkg.gpkg"
    (tmp_path / f".{final.name}.geoseg-work-file").write_text("no folder")
    killed, dead = holding(final)
    living, held = holding(final)
    elsewhere, foreign = holding(other)
    for process in (killed, elsewhere):
        process.kill()
        process.communicate()
    assert (dead / "spill").exists()
    with work_folder(final) as folder:
        (folder / "spill").write_text("temporary")
        assert folder.parent == tmp_path
        assert not dead.exists()
        assert (held / "spill").exists()
        assert (foreign / "spill").exists(), "that is of another file"
    assert not folder.exists()
    living.communicate("\n")
    assert living.returncode == 0
    assert not held.exists()


RACING = """
import sys
from pathlib import Path
from geoseg.io.atomic import work_folder

for _ in range(1500):
    with work_folder(Path(sys.argv[1])) as folder:
        (folder / "spill").write_text("temporary")
"""


def test_many_may_begin_to_write_the_same_file_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACING, str(tmp_path / "a.gpkg")]
    racing = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate()[1] for process in racing] == [""] * 4
    assert list(tmp_path.iterdir()) == []


def test_files_are_made_in_a_work_folder_and_named_outside(tmp_path: Path) -> None:
    final = tmp_path / "a.fgb"
    with work_folder(final) as folder:
        with atomic_path(final, folder) as temporary:
            temporary.write_text("whole")
            assert temporary.parent == folder
        remove_leftovers(tmp_path)
        assert folder.exists(), "it is not of `segment`"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("letter", ["x", "\u00fc"])
def test_names_may_be_as_long_as_a_disk_takes(tmp_path: Path, letter: str) -> None:
    final = tmp_path / f"{letter * (250 // len(letter.encode()))}.fgb"
    with work_folder(final) as folder, atomic_path(final, folder) as temporary:
        temporary.write_text("whole")
    with atomic_path(final) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [final]
    assert final.read_text() == "new"
