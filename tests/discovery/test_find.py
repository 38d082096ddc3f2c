"""Scenes in files, folders, patterns and links, and their ids."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.archive import RunDirectory
from geoseg.discovery import SceneFile, find_scenes, ids
from geoseg.errors import OutsideRootError, UsageError
from geoseg.layout import RUN_FILES


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def ids_of(files: list[SceneFile]) -> list[str]:
    return [file.scene_id for file in files]


def test_ids_mirror_the_archive(tmp_path: Path) -> None:
    touch(tmp_path / "2024" / "north" / "t_01.tif", tmp_path / "2023" / "x.v2.TIFF")
    touch(tmp_path / "2023" / "notes.txt", tmp_path / "2023" / "x.tfw")
    files, root = find_scenes([tmp_path])
    assert ids_of(files) == ["2023/x.v2", "2024/north/t_01"]
    assert root == str(tmp_path)


def test_the_root_is_the_folder_of_files_unless_given(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "1.tif", tmp_path / "a" / "b" / "2.tif"
    touch(one, two)
    assert ids_of(find_scenes([one, two])[0]) == ["1", "b/2"]
    assert ids_of(find_scenes([two])[0]) == ["2"]
    assert ids_of(find_scenes([two], tmp_path)[0]) == ["a/b/2"]
    with pytest.raises(OutsideRootError, match=r"1\.tif lies outside the root .*/b"):
        find_scenes([one], tmp_path / "a" / "b")


def test_patterns_and_repeated_scenes_are_one_scene_each(tmp_path: Path) -> None:
    touch(tmp_path / "1.tif", tmp_path / "2.tif", tmp_path / "[3].tif")
    (tmp_path / "folder.tif").mkdir()
    given = [tmp_path / "?.tif", tmp_path / "1.tif", tmp_path / "[3].tif"]
    assert ids_of(find_scenes(given)[0]) == ["1", "2", "_3_"]


def test_a_link_in_an_archive_is_named_for_the_link(tmp_path: Path) -> None:
    touch(tmp_path / "store" / "0af3.tif")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "paris.tif").symlink_to(tmp_path / "store" / "0af3.tif")
    assert ids_of(find_scenes([tmp_path / "archive"])[0]) == ["paris"]
    (tmp_path / "again").symlink_to(tmp_path / "archive")
    assert find_scenes([tmp_path / "again"])[1] == str(tmp_path / "archive")


@pytest.mark.parametrize("out", ["out", "."])
def test_outputs_inside_the_archive_are_no_scenes(tmp_path: Path, out: str) -> None:
    touch(tmp_path / "1.tif", tmp_path / "other" / "classes.tif")
    if out == ".":  # There it is a result by its name.
        (tmp_path / "other" / "classes.tif").unlink()
    run = tmp_path / out
    with RunDirectory(run, tmp_path, overwrite=True).locked():
        pass
    touch(run / "1" / "classes.tif", run / "1" / "confidence.tif")
    touch(run / ".geoseg" / "parts" / "x.tif")
    # Ids never take the name of a result.
    expected = ["1"] if out == "." else ["1", "other/classes"]
    assert ids_of(find_scenes([tmp_path])[0]) == expected
    assert ids_of(find_scenes([f"{tmp_path}/**/*.tif"])[0]) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no scene is given"),
        (["missing.tif"], "missing.tif does not exist"),
        (["*.jp2"], "does not exist"),
        (["empty"], "holds no scene"),
        (["emp*"], "matches folders only"),
        (["link.tif"], "no file to read, or a link that leads to none"),
        (["x" * 300], "too long"),
    ],
)
def test_scenes_that_are_not_there_are_one_clear_line(
    tmp_path: Path, given: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.tif").symlink_to("nothing")
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
    scene_id = ids.scene_id(str(path.with_name(f"{path.name}.tif")), str(root))
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


def test_folders_are_searched_through_links_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "archive" / "2024" / "a.tif", tmp_path / "store" / "b.tif")
    archive = tmp_path / "archive"
    (archive / "store").symlink_to(tmp_path / "store")
    (archive / "2024" / "back").symlink_to(archive)
    (archive / "2023").symlink_to(archive / "2024")
    (archive / "self").symlink_to(archive / "self")
    assert ids_of(find_scenes([archive])[0]) == ["2024/a", "store/b"]


def test_a_folder_that_cannot_be_listed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.tif", tmp_path / "locked" / "b.tif")
    scandir = os.scandir

    # Tests may run as root, whom no permission keeps out.
    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"locked cannot be searched \(Permission"):
        find_scenes([tmp_path])


def test_a_link_beside_its_file_is_the_same_scene(tmp_path: Path) -> None:
    touch(tmp_path / "b.tif")
    (tmp_path / "a.tif").symlink_to(tmp_path / "b.tif")
    assert ids_of(find_scenes([tmp_path])[0]) == ["b"]
    assert ids_of(find_scenes([tmp_path / "a.tif"])[0]) == ["a"]


URL = "https://user:pw@host:81/2024/caf%C3%A9%20x.tif?sig=0"


def test_urls_keep_their_addresses_and_get_ids_below_what_they_share() -> None:
    given = [URL, "https://host:81/2024/sub/b c.tif", "/vsicurl/https://host:81/d.tif"]
    # The user's name is no part of where a file lies.
    files, root = find_scenes(given)
    assert root == "https://host:81"
    assert ids_of(files) == ["2024/caf\u00e9_x", "2024/sub/b_c", "d"]
    assert [file.path for file in files] == [
        f"/vsicurl/{URL}",
        "/vsicurl/https://host:81/2024/sub/b%20c.tif",
        "/vsicurl/https://host:81/d.tif",
    ]
    assert ids_of(find_scenes(given[:2], f"{root}/2024")[0]) == [
        "caf\u00e9_x",
        "sub/b_c",
    ]
    with pytest.raises(OutsideRootError, match=r"https://host:81/d\.tif lies outside"):
        find_scenes(given, f"{root}/2024")


def test_the_same_url_is_one_scene_and_other_places_have_their_own(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a.tif")
    given = ["s3://bucket/x/a.tif", "/vsis3/bucket/x/a.tif", "gs://bucket/x/b.tif"]
    files, root = find_scenes([*given, tmp_path / "a.tif"])
    assert root == "/"
    local = "/".join(tmp_path.parts[1:])
    assert ids_of(files) == ["bucket/x/a", "bucket/x/b", f"{local}/a"]
    # A later call with that root gives the same ids.
    assert find_scenes(given[:1], root)[0] == files[:1]


@pytest.mark.parametrize(
    "url",
    [
        "https://host/../../etc/a.tif",
        "https://host/%2e%2e/%2E%2E/a.tif",
        "https://host/..%2f..%2fa.tif",
        "s3://bucket/../../a.tif",
        "https://host/'\"; DROP TABLE x.tif",
        "/vsizip//vsicurl/https://host/a.zip/../../b.tif",
    ],
)
@pytest.mark.parametrize("root", [None, "/"])
def test_no_address_leaves_the_run_directory(url: str, root: str | None) -> None:
    [scene], _ = find_scenes([url], root)
    for part in scene.scene_id.split("/"):
        assert re.fullmatch(r"[\w\-][\w.\-]*", part)


def test_an_unknown_scheme_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match=r"gopher:// cannot be read; use https://"):
        find_scenes(["gopher://host/a.tif"])
    with pytest.raises(UsageError, match=r"https://h/a\.tif and https://h/a\.tiff"):
        find_scenes(["https://h/a.tif", "https://h/a.tiff"])
