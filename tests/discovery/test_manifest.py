"""Manifests: what their lines mean, and how wrong ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoseg.discovery import find_scenes
from geoseg.errors import UsageError


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with a.tif, b.tif and sub/c.tif."""
    (tmp_path / "sub").mkdir()
    for name in ("a.tif", "b.tif", "sub/c d.tif"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def paths(manifest: Path) -> list[str]:
    """Scenes of a manifest, by their place below its folder."""
    found = find_scenes([manifest])[0]
    return [file.path.removeprefix(f"{manifest.parent}/") for file in found]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf# comment\r\n\r\n  a.tif \r\nsub/c d.tif\r\nhttps://h/x.tif\r\n",
        b"a.tif\nsub\nhttps://h/x.tif\na.tif",
        b"./a.tif\nsub/*.tif\n/vsicurl/https://h/x.tif",
    ],
)
def test_a_line_is_a_location_beside_the_manifest(
    archive: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive / "list.txt").write_bytes(text)
    monkeypatch.chdir("/")
    expected = ["a.tif", "sub/c d.tif", "/vsicurl/https://h/x.tif"]
    assert paths(archive / "list.txt") == expected


def test_a_query_makes_no_manifest_of_a_line(archive: Path) -> None:
    (archive / "list.txt").write_text("https://h/x.tif?from=list.csv\n")
    [name] = paths(archive / "list.txt")
    assert name == "/vsicurl/https://h/x.tif?from=list.csv"


@pytest.mark.parametrize(
    "text",
    [
        "id,PATH,cloud\n1,a.tif,3\n\n# no\n2,sub/c d.tif,4\n",
        'href;name\n"a.tif";"x;y"\nsub/c d.tif;z\n',
        "name\tLocation\nx\ta.tif\ny\tsub/c d.tif\n",
        '"url"\n"a.tif"\n"sub/c d.tif"\n',
        'note,path\n"two\n\nlines",a.tif\n,\nx,sub/c d.tif\n',
    ],
)
def test_a_table_has_a_column_of_locations(archive: Path, text: str) -> None:
    (archive / "list.csv").write_text(text)
    assert paths(archive / "list.csv") == ["a.tif", "sub/c d.tif"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "a.tif\n\nno.tif\nb.tif\n", r"a\.txt, line 3: .*no\.tif does not ex"),
        ("a.csv", "path\na.tif\nno.tif\n", r"a\.csv, line 3: .*no\.tif does not exist"),
        (
            "a.txt",
            "x\ny\n",
            r"line 1: .*x does not exist.*; line 2: .*y does not exist",
        ),
        ("a.txt", "".join(f"{n}\n" for n in range(9)), "; and 4 more"),
        ("a.txt", "b.txt\n", "line 1: b.txt is a manifest itself"),
        ("a.txt", "ftp://h/a.tif\n", "line 1: ftp://h/a.tif: ftp:// cannot be read"),
        ("a.txt", "# nothing\n\n", "lists no scene"),
        ("a.csv", "path\n", "lists no scene"),
        ("a.csv", "", "lists no scene"),
        ("a.csv", "name,x\na.tif,1\n", "has the columns name, x, and none is named"),
        ("a.csv", "x,path\n1,a.tif\n2\n", "line 3: the column path is empty"),
        ("a.csv", 'path\n"a.tif\nb.tif\n', "line 3: .*does not exist"),
        ("a.csv", f"x,path\n{'y' * 200_000},a.tif\n", "line 2: field larger than"),
        ("a.txt", "a" * 10_000, "line 1: 10000 characters are no location"),
        ("a.txt", "a.tif\n".encode("utf-16").decode("latin-1"), "save it as UTF-8"),
        ("a.txt", "https://[h/a.tif", r"line 1: https://\[h/a.tif has no valid host"),
        ("a.txt", "https://u:p@h/b.txt?sig=1", r"1: https://h/b.txt\?sig=... is a man"),
        ("a.txt", "ftp://u:p@h/a.tif", "line 1: ftp://h/a.tif: ftp:// cannot be read"),
    ],
)
def test_wrong_lines_are_told_by_their_number(
    archive: Path, name: str, text: str, message: str
) -> None:
    (archive / name).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        find_scenes([archive / name])
    assert "\n" not in str(caught.value)
