"""Workers as jobs of a real SLURM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rasters import write_raster
from running import fingerprint, segment_plainly, smooth_image, stub_config
from slurm_node import NotHere, queued, slurm_node
from stubs import save_stub

from geoseg._heap import SETTINGS
from geoseg.cluster import connect
from geoseg.clusters.config import ClusterConfig
from geoseg.config import compose, convert
from geoseg.errors import ClusterError
from geoseg.pipelines.segment import SegmentConfig

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def node() -> Iterator[dict[str, str]]:
    """Environment of a SLURM node, and of jobs that find geoseg and stubs."""
    try:
        with slurm_node() as environment:
            paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
            yield {**environment, "PYTHONPATH": paths}
    except NotHere as reason:
        pytest.skip(f"SLURM is absent: {reason}")


@pytest.fixture
def submitting(
    node: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Stand in a folder from which jobs are submitted."""
    for name in ("SLURM_CONF", "PYTHONPATH"):
        monkeypatch.setenv(name, node[name])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def slurm(*settings: str) -> ClusterConfig:
    """The recipe `slurm`, for one small worker."""
    composed = compose(
        "segment",
        [
            *("scenes=[a.tif]", "out=out", "clusters=slurm"),
            *("cluster.spec.options.memory=3GiB", "cluster.timeout=120", *settings),
        ],
    )
    return convert(composed, SegmentConfig).cluster


def start(folder: Path, scene: Path, model: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "geoseg", "segment", scene, "-o", "out"]
    command += ["--model", model, "--set", "model.imports=[stubs]", "--stride", "48"]
    command += ["--cluster", "slurm", "--set", "cluster.spec.options.memory=3GiB"]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until_gone(node: dict[str, str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := queued(node):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_jobs_give_the_masks_of_a_local_run_and_end_with_it(
    submitting: Path, node: dict[str, str]
) -> None:
    scene = write_raster(submitting / "scene.tif", smooth_image(200, 260))
    model = save_stub(submitting / "model")
    segment_plainly(scene, submitting / "plain", model)
    process = start(submitting, scene, model)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    # Its log is named for the job's number, and tells of the worker.
    [log] = submitting.glob("slurm-*.out")
    assert re.fullmatch(r"slurm-\d+\.out", log.name)
    assert "SLURMCluster-0" in log.read_text()
    wait_until_gone(node, 30)
    made, plain = submitting / "out" / "scene", submitting / "plain" / "scene"
    assert fingerprint(made) == fingerprint(plain)


def test_each_worker_is_a_job_with_its_own_number(
    submitting: Path, node: dict[str, str]
) -> None:
    model = stub_config(submitting / "model")

    def environment() -> dict[str, str | None]:
        names = ["SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "PYTHONSAFEPATH"]
        return {name: os.environ.get(name) for name in [*names, *SETTINGS]}

    with connect(slurm("cluster.workers=2"), model, parts=9) as client:
        client.wait_for_workers(2, timeout=120)
        found = list(client.run(environment).values())
        assert {worker["SLURM_JOB_ID"] for worker in found} == set(queued(node))
        assert len(queued(node)) == 2
    for worker in found:
        del worker["SLURM_JOB_ID"]
        assert list(worker.values()) == ["2", "1", *SETTINGS.values()]
    wait_until_gone(node, 30)


def test_jobs_are_gone_soon_after_their_client(
    submitting: Path, node: dict[str, str]
) -> None:
    scene = write_raster(submitting / "scene.tif", smooth_image(64 + 48 * 60, 130))
    model = save_stub(submitting / "model", seconds=0.3)
    codes = {signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    # Both at once: most of the time they wait.
    clients = {}
    for number in codes:
        folder = submitting / number.name
        folder.mkdir()
        clients[number] = start(folder, scene, model)
    deadline = time.monotonic() + 200
    parts = "out/.geoseg/parts/*/part-*.json"
    while not all(any((submitting / one.name).glob(parts)) for one in codes):
        for client in clients.values():
            assert client.poll() is None, client.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(queued(node)) == 2
    for number, client in clients.items():
        client.send_signal(number)
    for number, client in clients.items():
        client.communicate(timeout=60)
        assert client.returncode == codes[number]
    # A worker that lost its scheduler ends, and its job with it.
    wait_until_gone(node, 60)
    assert not list(submitting.glob("*/out/scene"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["cluster.spec.options.queue=nope"],
            r"^dask_jobqueue.SLURMCluster did not start: sbatch refused the job: "
            r"invalid partition specified: nope; Batch job submission failed",
        ),
        (
            [
                "cluster.spec.options.job_extra_directives=['--hold']",
                "cluster.timeout=2",
            ],
            r"^no worker joined within 2 s: squeue says job \d+ is PENDING JobHeldUser",
        ),
        (
            ["cluster.spec.options.job_script_prologue=['exit 1']"],
            r"^no worker joined: job \d+ has ended, see its log \(slurm-JOB.out",
        ),
    ],
)
def test_what_slurm_says_is_one_line(
    submitting: Path, node: dict[str, str], settings: list[str], message: str
) -> None:
    model: Any = stub_config(submitting / "model")
    with (
        pytest.raises(ClusterError, match=message) as refused,
        connect(slurm(*settings), model, parts=1),
    ):
        pass
    assert "\n" not in str(refused.value)
    wait_until_gone(node, 30)
