"""Names of files: what GDAL opens, what is told, what other machines may name."""

from __future__ import annotations

import pytest

from geoseg.errors import UsageError
from geoseg.io.location import (
    beside,
    is_remote,
    name_for_gdal,
    shown,
    suffix_of,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("a b.tif", "a b.tif", "a b.tif"),
        ("file:///x/a%20b.tif", "/x/a b.tif", "/x/a b.tif"),
        ("s3://b/x y.tif", "/vsis3/b/x y.tif", "s3://b/x y.tif"),
        ("gs://b/%20.tif", "/vsigs/b/%20.tif", "gs://b/%20.tif"),
        ("HTTPS://h/a b.tif", "/vsicurl/https://h/a%20b.tif", "https://h/a%20b.tif"),
        ("/vsizip//a.zip/b.tif", "/vsizip//a.zip/b.tif", "/vsizip//a.zip/b.tif"),
        ("http://h/a.tif?v=1", "/vsicurl/http://h/a.tif?v=1", "http://h/a.tif?v=1"),
        # Signatures and passwords are for the server alone.
        (
            "http://u:p@h/a.tif?sig=1",
            "/vsicurl/http://u:p@h/a.tif?sig=1",
            "http://h/a.tif",
        ),
    ],
)
def test_a_location_becomes_what_gdal_opens(text: str, name: str, told: str) -> None:
    assert name_for_gdal(text) == name
    assert shown(name) == told
    assert is_remote(name) == name.startswith(("/vsis3", "/vsigs", "/vsicurl"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "/vsizip/{/vsicurl/https://u:p@h/a.zip?sig=1&v=2}/b.tif",
            "/vsizip/{/vsicurl/https://h/a.zip?sig=...&v=2}/b.tif",
        ),
        (
            "/vsizip//vsicurl/https://h/a.zip?X-Amz-Signature=1/b.tif",
            "/vsizip//vsicurl/https://h/a.zip?X-Amz-Signature=.../b.tif",
        ),
        (
            "/vsicurl?max_retry=2&url=https%3A%2F%2Fu%3Ap%40h%2Fa.tif%3Fsig%3D1",
            "/vsicurl?max_retry=2&url=https://h/a.tif?sig=...",
        ),
        ("/vsicurl/https://[u:p@h/a.tif", "https://h/a.tif"),
    ],
)
def test_names_within_names_are_told_without_secrets(name: str, told: str) -> None:
    assert shown(name) == told


def test_no_secret_is_told_in_a_longer_text() -> None:
    text = "'/vsicurl/https://u:p@h/a.tif?token=x' and ftp://u:p@h/b.tif?v=1, no more"
    told = "'/vsicurl/https://h/a.tif?token=...' and ftp://h/b.tif?v=1, no more"
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "text", ["", " ", "https://", "https:///a.tif", "https://[x/a.tif", "http://h:x/a"]
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"empty name|no valid host"):
        name_for_gdal(text)


def test_a_password_with_a_slash_is_not_told() -> None:
    with pytest.raises(UsageError) as caught:
        name_for_gdal("https://user:pa/ss@host/a.tif")
    assert "pa/ss" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("/vsicurl/https://h/a.TIF?x=b.json", ".tif"),
        ("/vsis3/bucket/x/", ""),
        ("/data/list.txt", ".txt"),
        ("/", ""),
    ],
)
def test_a_query_is_no_extension(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize(
    ("folder", "text", "found"),
    [
        ("/data", "a.tif", "/data/a.tif"),
        ("/data", "/x/a.tif", "/x/a.tif"),
        ("/data", "s3://b/a.tif", "s3://b/a.tif"),
        ("/vsicurl/https://h/x", "../a b.tif", "https://h/a b.tif"),
        ("/vsicurl/https://h/x", "gs://b/a.tif", "gs://b/a.tif"),
        ("/vsis3/b/x/y", "../a.tif", "/vsis3/b/x/a.tif"),
        ("/vsis3/b/x", "../../../c/a.tif", "/vsis3/b/c/a.tif"),
        # Another machine names its own files.
        ("/vsicurl/https://h/x", "/etc/a.tif", "https://h/etc/a.tif"),
        ("/vsicurl/https://h/x", "/vsizip//etc/a.zip", "https://h/vsizip//etc/a.zip"),
        ("/vsis3/b/x", "/etc/a.tif", "/vsis3/b/etc/a.tif"),
        (
            "/vsizip//vsicurl/https://h/a.zip",
            "x.tif",
            "/vsizip//vsicurl/https://h/a.zip/x.tif",
        ),
        ("/vsizip//a.zip/x", "./y/b.tif", "/vsizip//a.zip/x/y/b.tif"),
    ],
)
def test_names_in_a_file_are_relative_to_its_place(
    folder: str, text: str, found: str
) -> None:
    assert beside(folder, text) == found


def test_another_machine_names_no_file_of_this_one() -> None:
    with pytest.raises(UsageError, match="named by https://h/x, another machine"):
        beside("/vsicurl/https://h/x", "file:///etc/a.tif")


@pytest.mark.parametrize("text", ["/etc/a.tif", "x/../../a.tif", "/vsizip//a.zip/b"])
def test_an_archive_names_only_what_lies_in_it(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"leads out of /vsizip//vsicurl/https://h/a\."
    ):
        beside("/vsizip//vsicurl/https://h/a.zip", text)
