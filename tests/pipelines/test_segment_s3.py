"""Scenes in an object store: moto's server on loopback stands for S3."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from rasters import write_raster
from running import fingerprint, segment_plainly, smooth_image
from stubs import save_stub

from geoseg.discovery import find_scenes
from geoseg.errors import UsageError
from geoseg.io.vsi import remote_state

BUCKET = "archive.of.tests"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of S3's protocol, which lives as long as this module."""
    log = tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, stdout=stream, stderr=stream) as process,
    ):
        try:
            yield _address(log)
        finally:
            process.terminate()


def _address(log: Path) -> str:
    """Wait until the server says where it is, and answers there."""
    for _ in range(600):
        words = log.read_text().split()
        found = [word for word in words if word.startswith("http://127.0.0.1:")]
        if found:
            urllib.request.urlopen(found[0], timeout=30).close()
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"moto did not start in 30 s: {log.read_text()}")


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """Give an empty bucket; GDAL finds it as a user's settings tell."""
    settings = {
        "AWS_S3_ENDPOINT": endpoint.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=entry["Key"])
    client.delete_bucket(Bucket=BUCKET)


def test_a_scene_in_a_bucket_gives_what_the_file_gives(
    tmp_path: Path,
    store: Any,  # noqa: ANN401
) -> None:
    model = save_stub(tmp_path / "model", kind="levels", output_stride=4)
    file = write_raster(tmp_path / "a.tif", smooth_image(150, 130))
    store.put_object(Bucket=BUCKET, Key="x/s\u00e9 1.tif", Body=file.read_bytes())
    url = f"s3://{BUCKET}/x/s\u00e9 1.tif"
    [far] = segment_plainly([url], tmp_path / "far", model)
    [near] = segment_plainly([file], tmp_path / "near", model)
    assert far.scene_id == "s\u00e9_1"
    assert fingerprint(Path(far.folder)) == fingerprint(Path(near.folder))
    state = remote_state(f"/vsis3/{BUCKET}/x/s\u00e9 1.tif")
    store.put_object(Bucket=BUCKET, Key="x/s\u00e9 1.tif", Body=b"another")
    assert remote_state(f"/vsis3/{BUCKET}/x/s\u00e9 1.tif") != state


def test_buckets_are_listed_as_folders(store: Any) -> None:  # noqa: ANN401
    for key in ("2024/b.tif", "2024/n/c.TIF", "2024/n/", "2024/n/x.txt", "a.tif"):
        store.put_object(Bucket=BUCKET, Key=key, Body=b"")
    store.put_object(Bucket=BUCKET, Key="2024/l.txt", Body=b"b.tif\n../a.tif\n")
    for given, root, ids in [
        (f"s3://{BUCKET}", "", ["2024/b", "2024/n/c", "a"]),
        (f"s3://{BUCKET}/2024", "/2024", ["b", "n/c"]),
        (f"s3://{BUCKET}/2024/n/", "/2024/n", ["c"]),
        (f"s3://{BUCKET}/*/*.tif", "/2024", ["b"]),
        (f"s3://{BUCKET}/**/*.tif", "", ["2024/b", "a"]),
        (f"s3://{BUCKET}/2024/l.txt", "", ["2024/b", "a"]),
    ]:
        files, found = find_scenes([given])
        assert found == f"s3://{BUCKET}{root}", given
        assert [file.scene_id for file in files] == ids, given
    with pytest.raises(UsageError, match=r"/2023 lists no scene .*manifest"):
        find_scenes([f"s3://{BUCKET}/2023"])
    with pytest.raises(UsageError, match="names no bucket"):
        find_scenes(["s3://"])
