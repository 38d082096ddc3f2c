from __future__ import annotations

from pathlib import Path

import pytest

from geoseg.io.atomic import atomic_path, publish, remove_leftovers


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
