"""The run directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoseg.archive import RunDirectory, scene_key
from geoseg.errors import OutputError
from geoseg.layout import finishing_name


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def record(path: Path, root: str | Path, *, overwrite: bool = False) -> None:
    """Begin a run and end it at once."""
    with RunDirectory(path, root, overwrite=overwrite).locked():
        pass


def test_a_run_that_is_refused_changes_nothing_of_the_one_that_goes_on(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with RunDirectory(out, tmp_path, overwrite=False).locked():
        other = RunDirectory(out, tmp_path / "below", overwrite=True)
        with pytest.raises(OutputError, match="another run writes to"), other.locked():
            pass
        assert RunDirectory.recorded_root(out) == str(tmp_path)


def test_names_that_no_disk_takes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        RunDirectory(tmp_path / ("x" * 300), tmp_path, overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        RunDirectory.recorded_root(tmp_path / ("x" * 300))


def test_a_run_directory_must_be_new_or_of_geoseg(tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    touch(foreign / "me.jpg", tmp_path / "file")
    with pytest.raises(OutputError, match=r"not made by geoseg.*--overwrite"):
        RunDirectory(foreign, tmp_path, overwrite=False)
    with pytest.raises(OutputError, match="is a file"):
        RunDirectory(tmp_path / "file", tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "below", tmp_path, overwrite=False)
    assert not (foreign / ".geoseg").exists()
    record(foreign, tmp_path, overwrite=True)
    RunDirectory(foreign, tmp_path, overwrite=False)
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty", tmp_path, overwrite=False)
    # Again: the first one ended before its run began.
    RunDirectory(tmp_path / "empty", tmp_path, overwrite=False)


def test_another_root_is_refused(tmp_path: Path) -> None:
    record(tmp_path / "out", tmp_path)
    assert RunDirectory.recorded_root(tmp_path / "out") == str(tmp_path)
    with pytest.raises(OutputError, match=r"--root .*choose another -o"):
        RunDirectory(tmp_path / "out", tmp_path / "below", overwrite=False)
    record(tmp_path / "out", tmp_path / "below", overwrite=True)
    assert RunDirectory.recorded_root(tmp_path / "out") == str(tmp_path / "below")


def test_parts_of_a_scene_are_dropped_and_others_kept(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path, overwrite=False)
    kept, stale = directory.work_folder("a", "1" * 64), directory.work_folder("a", "2")
    other = directory.work_folder("a/b", "1" * 64)
    touch(kept / "part", stale / "part", other / "part")
    # As a task leaves it that was killed at its very end.
    lock = kept.with_name(finishing_name("a"))
    touch(lock)
    directory.discard_parts("a", keep="1" * 64)
    assert (kept.exists(), stale.exists(), other.exists()) == (True, False, True)
    directory.discard_parts("a")
    assert not lock.exists()
    assert (kept.exists(), other.exists()) == (False, True)


def test_a_key_tells_inputs_weights_and_settings_apart(tmp_path: Path) -> None:
    scene, other = tmp_path / "scene.tif", tmp_path / "other.tif"
    settings = {"stride": 48, "bands": (1, 2, 3)}
    keys = [scene_key(scene, "state", "weights", settings)]
    assert scene_key(scene, "state", "weights", dict(settings)) == keys[0]
    keys.append(scene_key(other, "state", "weights", settings))
    keys.append(scene_key(scene, "another state", "weights", settings))
    keys.append(scene_key(scene, "state", "other weights", settings))
    keys.append(scene_key(scene, "state", "weights", {**settings, "stride": 47}))
    assert len(set(keys)) == len(keys)


def test_a_key_forgets_what_signs_a_request() -> None:
    url = "/vsicurl/https://host/a.tif"
    keys = [
        scene_key(f"{url}{query}", "state", "weights", {})
        for query in ("", "?X-Amz-Signature=1", "?sig=2&se=x", "?version=2")
    ]
    assert len(set(keys)) == 2
    assert keys[0] == keys[1] == keys[2]


def test_scenes_with_ids_of_their_own_leave_the_root_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    record(out, "")
    assert RunDirectory.recorded_root(out) == ""
    record(out, tmp_path)
    record(out, "")
    assert RunDirectory.recorded_root(out) == str(tmp_path)


def test_a_damaged_record_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".geoseg" / "mosaics").mkdir(parents=True)
    (tmp_path / ".geoseg" / "root").write_bytes(b"\0\0\0")
    with pytest.raises(OutputError, match=r"root is damaged; delete it"):
        RunDirectory.recorded_root(tmp_path)
    (tmp_path / ".geoseg" / "root").unlink()
    (tmp_path / ".geoseg" / "mosaics" / "m.vrt").write_bytes(b"\xff")
    directory = RunDirectory(tmp_path, "", overwrite=False)
    assert directory.mosaic("m", "new").read_text() == "new"
