"""Certificates of a test authority, and those who have none."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest
import trustme
from dask_processes import dask_processes
from distributed import LocalCluster
from distributed.security import Security
from rasters import write_raster
from running import (
    configuration,
    fingerprint,
    segment_plainly,
    smooth_image,
    stub_config,
)
from stubs import save_stub

from geoseg.cluster import connect
from geoseg.clusters.config import ClusterConfig, TlsConfig
from geoseg.errors import ClusterError, ConfigError, GeosegError
from geoseg.pipelines import segment

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Authority:
    """Files that an authority signed."""

    ca: Path
    cert: Path
    key: Path

    @property
    def tls(self) -> TlsConfig:
        """As a recipe names them."""
        return TlsConfig(self.ca, self.cert, self.key)


def authority(folder: Path) -> Authority:
    """Make an authority and a certificate."""
    folder.mkdir()
    made = Authority(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    signer = trustme.CA()
    signer.cert_pem.write_to_path(str(made.ca))
    signed = signer.issue_cert("127.0.0.1")
    signed.cert_chain_pems[0].write_to_path(str(made.cert))
    signed.private_key_pem.write_to_path(str(made.key))
    return made


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the cluster."""
    return authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def address(ours: Authority) -> Iterator[str]:
    """A scheduler that asks for certificates, with one worker, in this process."""
    roles = ("client", "scheduler", "worker")
    files = {f"tls_{role}_cert": str(ours.cert) for role in roles}
    files |= {f"tls_{role}_key": str(ours.key) for role in roles}
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tls://",
        dashboard_address=":0",
        security=Security(require_encryption=True, tls_ca_file=str(ours.ca), **files),
    ) as running:
        yield running.scheduler_address


def test_a_client_with_a_certificate_is_let_in(
    tmp_path: Path, address: str, ours: Authority
) -> None:
    config = ClusterConfig(scheduler=address, tls=ours.tls)
    with connect(config, stub_config(tmp_path / "model"), parts=1) as client:
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3


def test_the_settings_of_dask_will_do(
    tmp_path: Path, address: str, ours: Authority
) -> None:
    files = {"ca-file": ours.ca, "client.cert": ours.cert, "client.key": ours.key}
    settings = {f"distributed.comm.tls.{key}": str(file) for key, file in files.items()}
    with (
        dask.config.set(settings),
        connect(
            ClusterConfig(scheduler=address), stub_config(tmp_path / "model"), parts=1
        ) as client,
    ):
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3


def refused(config: ClusterConfig, folder: Path) -> str:
    """Return the one line with which a client is sent away, in time."""
    model = stub_config(folder / "model")
    started = time.monotonic()
    with pytest.raises(GeosegError) as error, connect(config, model, parts=1):
        pass
    assert time.monotonic() - started < config.timeout + 10
    assert isinstance(error.value, (ClusterError, ConfigError))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_client_without_a_certificate_is_told_to_name_one(
    tmp_path: Path, address: str
) -> None:
    said = refused(ClusterConfig(scheduler=address, timeout=3), tmp_path)
    assert said.startswith(f"scheduler {address} asks for a certificate; name yours")


def test_a_client_of_another_authority_is_told(tmp_path: Path, address: str) -> None:
    stranger = authority(tmp_path / "stranger")
    config = ClusterConfig(scheduler=address, tls=stranger.tls, timeout=3)
    said = refused(config, tmp_path)
    assert "TLS was refused (certificate verify failed)" in said


def test_a_certificate_of_nobody_known_is_refused_by_the_scheduler(
    tmp_path: Path, address: str, ours: Authority
) -> None:
    stranger = authority(tmp_path / "stranger")
    # It trusts the scheduler; the scheduler does not trust it.
    tls = TlsConfig(ours.ca, stranger.cert, stranger.key)
    said = refused(ClusterConfig(scheduler=address, tls=tls, timeout=3), tmp_path)
    # By an alert, or by the end of the connection.
    assert "one authority signed both" in said


def test_the_scheduler_talks_to_nobody_without_a_certificate(
    address: str, ours: Authority
) -> None:
    context = ssl.create_default_context(cafile=str(ours.ca))
    context.check_hostname = False
    host, port = address.removeprefix("tls://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        context.wrap_socket(plain) as wrapped,
    ):
        wrapped.recv(1)


def test_certificates_are_not_offered_to_a_scheduler_without_tls(
    tmp_path: Path, ours: Authority
) -> None:
    config = ClusterConfig(scheduler="tcp://127.0.0.1:1", tls=ours.tls, timeout=3)
    assert "its address must start with tls://" in refused(config, tmp_path)


@pytest.mark.parametrize("wrong", ["missing", "no certificate"])
def test_files_that_hold_no_certificate_are_told(
    tmp_path: Path, ours: Authority, wrong: str
) -> None:
    other = tmp_path / "other.pem"
    if wrong != "missing":
        other.write_text(wrong)
    config = ClusterConfig(
        scheduler="tls://127.0.0.1:1", tls=TlsConfig(other, ours.cert, ours.key)
    )
    assert "the certificates cannot be read" in refused(config, tmp_path)


def test_half_of_the_settings_of_dask_is_told(tmp_path: Path, ours: Authority) -> None:
    settings = {
        "distributed.comm.tls.ca-file": str(ours.ca),
        "distributed.comm.require-encryption": True,
    }
    with dask.config.set(settings):
        said = refused(ClusterConfig(workers=1), tmp_path)
    assert "require encryption, and no certificate is named" in said


@pytest.mark.slow
def test_a_run_over_tls_gives_the_same_masks(tmp_path: Path, ours: Authority) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(150, 130))
    model = save_stub(tmp_path / "model")
    segment_plainly(scene, tmp_path / "plain", model)
    common = ["--protocol", "tls", "--tls-ca-file", ours.ca]
    common += ["--tls-cert", ours.cert, "--tls-key", ours.key]
    with dask_processes(tmp_path, common=common, worker=["--no-nanny"]) as file:
        cluster = {"scheduler_file": file, "tls": ours.tls, "timeout": 60.0}
        config = configuration(scene, tmp_path / "out", model, {"cluster": cluster})
        assert segment.run(config).ok
    made, plain = tmp_path / "out" / "scene", tmp_path / "plain" / "scene"
    assert fingerprint(made) == fingerprint(plain)


@pytest.mark.slow
def test_local_workers_may_use_certificates_too(
    tmp_path: Path, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    config = ClusterConfig(workers=1, tls=ours.tls, timeout=60)
    with connect(config, stub_config(tmp_path / "model"), parts=1) as client:
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3
        info = client.scheduler_info(n_workers=-1)
        addresses = [info["address"], *info["workers"]]
    assert all(one.startswith("tls://127.0.0.1") for one in addresses)
