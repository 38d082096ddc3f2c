"""Finding scenes, their ids, and the run directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg import archive
from geoseg.archive import RUN_FILES, RunDirectory, SceneFile, find_scenes, scene_key
from geoseg.errors import OutputError, OutsideRootError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def ids(files: list[SceneFile]) -> list[str]:
    return [file.scene_id for file in files]


def test_ids_mirror_the_archive(tmp_path: Path) -> None:
    touch(tmp_path / "2024" / "north" / "t_01.tif", tmp_path / "2023" / "x.v2.TIFF")
    touch(tmp_path / "2023" / "notes.txt", tmp_path / "2023" / "x.tfw")
    files, root = find_scenes([tmp_path])
    assert ids(files) == ["2023/x.v2", "2024/north/t_01"]
    assert root == tmp_path


def test_the_root_is_the_folder_of_files_unless_given(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "1.tif", tmp_path / "a" / "b" / "2.tif"
    touch(one, two)
    assert ids(find_scenes([one, two])[0]) == ["1", "b/2"]
    assert ids(find_scenes([two])[0]) == ["2"]
    assert ids(find_scenes([two], tmp_path)[0]) == ["a/b/2"]
    with pytest.raises(OutsideRootError, match=r"1\.tif lies outside the root .*/b"):
        find_scenes([one], tmp_path / "a" / "b")


def test_patterns_and_repeated_scenes_are_one_scene_each(tmp_path: Path) -> None:
    touch(tmp_path / "1.tif", tmp_path / "2.tif", tmp_path / "[3].tif")
    (tmp_path / "folder.tif").mkdir()
    given = [tmp_path / "?.tif", tmp_path / "1.tif", tmp_path / "[3].tif"]
    assert ids(find_scenes(given)[0]) == ["1", "2", "_3_"]


def test_a_link_in_an_archive_is_named_for_the_link(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "0af3.tif")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "paris.tif").symlink_to(tmp_path / "store" / "0af3.tif")
    assert ids(find_scenes([tmp_path / "archive"])[0]) == ["paris"]
    (tmp_path / "again").symlink_to(tmp_path / "archive")
    assert find_scenes([tmp_path / "again"])[1] == tmp_path / "archive"


@pytest.mark.parametrize("out", ["out", "."])
def test_outputs_inside_the_archive_are_no_scenes(tmp_path: Path, out: str) -> None:
    touch(tmp_path / "1.tif", tmp_path / "other" / "classes.tif")
    if out == ".":  # There it is a result by its name.
        (tmp_path / "other" / "classes.tif").unlink()
    run = tmp_path / out
    record(run, tmp_path, overwrite=True)
    touch(run / "1" / "classes.tif", run / "1" / "confidence.tif")
    touch(run / ".geoseg" / "parts" / "x.tif")
    # Ids never take the name of a result.
    expected = ["1"] if out == "." else ["1", "other/classes"]
    assert ids(find_scenes([tmp_path])[0]) == expected
    assert ids(find_scenes([f"{tmp_path}/**/*.tif"])[0]) == expected


def record(path: Path, root: Path, *, overwrite: bool = False) -> None:
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
        assert RunDirectory.recorded_root(out) == tmp_path


def test_names_that_no_disk_takes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        RunDirectory(tmp_path / ("x" * 300), tmp_path, overwrite=False)
    with pytest.raises(OutputError, match="cannot be written"):
        RunDirectory.recorded_root(tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match="too long"):
        find_scenes([tmp_path / ("x" * 300)])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no scene is given"),
        (["missing.tif"], "missing.tif does not exist"),
        (["*.jp2"], "does not exist"),
        (["empty"], "holds no scene"),
        (["emp*"], "matches folders only"),
    ],
)
def test_scenes_that_are_not_there_are_one_clear_line(
    tmp_path: Path, given: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        find_scenes([tmp_path / name for name in given])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("a.tif", "a.tiff"),
        ("A.tif", "a.tif"),
        ("x y.tif", "x_y.tif"),
        ("..tif/1.tif", "_tif/1.tif"),
        ("caf\u00e9.tif", "cafe\u0301.tif"),
        ("a\nb.tif", "a b.tif"),
    ],
)
def test_scenes_that_would_share_an_id_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    touch(*(tmp_path / name for name in names))
    with pytest.raises(UsageError, match="would both be scene"):
        find_scenes([tmp_path])


NAMES = st.one_of(
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
    ),
    st.text("./\\ ~$;'\"\n", min_size=1).map(lambda text: text.replace("/", ".")),
    st.sampled_from(
        ["..", ".geoseg", "...", *RUN_FILES, "item.json", "CLASSES.TIF", "scores.tif"]
    ),
)


@given(st.lists(NAMES, min_size=1, max_size=3))
def test_no_name_leaves_the_run_directory_or_takes_a_place_in_it(
    names: list[str],
) -> None:
    root = Path("/archive")
    # No file is needed: `find_scenes` asks the disk only what a path is.
    path = root.joinpath(
        *(f"{name}.d" if name in (".", "..") else name for name in names)
    )
    scene_id = archive._scene_id(path.with_name(f"{path.name}.tif"), root)
    out = Path("/out")
    folder = RunDirectory.scene_folder(_directory(out), scene_id)
    assert os.path.normpath(folder) == str(folder)
    assert folder.is_relative_to(out)
    assert folder != out
    first = folder.relative_to(out).parts[0]
    assert first.lower() not in {".geoseg", *RUN_FILES}
    for part in folder.relative_to(out).parts:
        assert not part.startswith(".")
        assert part.isprintable()
        assert part.lower() not in {"classes.tif", "scores.tif", "item.json"}


def _directory(path: Path) -> RunDirectory:
    directory = RunDirectory.__new__(RunDirectory)
    directory.path = path
    return directory


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
    assert RunDirectory.recorded_root(tmp_path / "out") == tmp_path
    with pytest.raises(OutputError, match=r"--root .*choose another -o"):
        RunDirectory(tmp_path / "out", tmp_path / "below", overwrite=False)
    record(tmp_path / "out", tmp_path / "below", overwrite=True)
    assert RunDirectory.recorded_root(tmp_path / "out") == tmp_path / "below"


def test_parts_of_a_scene_are_dropped_and_others_kept(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, tmp_path, overwrite=False)
    kept, stale = directory.work_folder("a", "1" * 64), directory.work_folder("a", "2")
    other = directory.work_folder("a/b", "1" * 64)
    touch(kept / "part", stale / "part", other / "part")
    directory.discard_parts("a", keep="1" * 64)
    assert (kept.exists(), stale.exists(), other.exists()) == (True, False, True)
    directory.discard_parts("a")
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
