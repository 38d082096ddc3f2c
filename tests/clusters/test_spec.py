"""Clusters of any class by its import path."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from running import stub_config

from geoseg.cluster import RESOURCE, connect
from geoseg.clusters.config import ClusterConfig, SpecConfig
from geoseg.clusters.spec import find_class
from geoseg.config import compose, convert
from geoseg.errors import ClusterError, ConfigError
from geoseg.pipelines.segment import SegmentConfig

IN_PROCESS: dict[str, Any] = {
    "n_workers": 0,
    "threads_per_worker": 2,
    "processes": False,
    "protocol": "tcp://",
    "dashboard_address": ":0",
}
SLURM = "dask_jobqueue.SLURMCluster"
SMALL: dict[str, Any] = {
    "cores": 2,
    "processes": 1,
    "memory": "1GiB",
    "scheduler_options": {"dashboard_address": ":0"},
}


def of_class(cls: str, options: dict[str, Any], **fields: Any) -> ClusterConfig:  # noqa: ANN401
    spec = {name: fields.pop(name) for name in ("minimum", "maximum") if name in fields}
    return ClusterConfig(spec=SpecConfig(cls, options, **spec), **fields)


def test_as_many_workers_as_asked_and_no_more_than_parts(tmp_path: Path) -> None:
    model = stub_config(tmp_path / "model")
    config = of_class("distributed.LocalCluster", IN_PROCESS, workers=3)
    with connect(config, model, parts=2) as client:
        client.wait_for_workers(2, timeout=30)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [worker["resources"][RESOURCE] for worker in workers] == [1] * 2
        scheduler = client.cluster.scheduler
    assert scheduler.status.name == "closed"


def test_the_number_of_workers_follows_the_work(tmp_path: Path) -> None:
    model = stub_config(tmp_path / "model")
    config = of_class("distributed.LocalCluster", IN_PROCESS, minimum=1, maximum=2)
    with connect(config, model, parts=9) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1
        waiting = client.map(time.sleep, [1 + i / 100 for i in range(40)], pure=False)
        client.wait_for_workers(2, timeout=30)
        client.cancel(waiting)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.system", "os.system is no class of clusters"),
        ("distributed.Client", "distributed.Client is no class of clusters"),
        ("distributed.NoCluster", "'distributed.NoCluster' cannot be imported"),
        ("nonsense", "package.module.Class is what it looks like"),
        ("", "package.module.Class is what it looks like"),
        ("not_here.Cluster", "pip install what not_here belongs to"),
    ],
)
def test_a_path_that_names_no_class_of_clusters_is_never_called(
    path: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_class(path)


@pytest.mark.parametrize("code", ["def (", "1 / 0", "raise SystemExit(3)"])
def test_a_module_that_does_not_import_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "broken_clusters.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"'broken_clusters.X' cannot be imported"):
        find_class("broken_clusters.X")


def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match=r"pip install 'geoseg\[slurm\]'"):
        find_class(SLURM)


@pytest.mark.filterwarnings("ignore:unclosed cluster")
@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (SLURM, {**SMALL, "colour": "red"}, "argument 'colour'"),
        (SLURM, {}, "specify how much cores and memory"),
        ("distributed.SpecCluster", {"colour": "red"}, "argument 'colour'"),
    ],
)
def test_arguments_that_do_not_fit_the_class_are_one_line(
    tmp_path: Path, cls: str, options: dict[str, Any], message: str
) -> None:
    model = stub_config(tmp_path / "model")
    with (
        pytest.raises(ConfigError, match=message) as refused,
        connect(of_class(cls, options), model, parts=1),
    ):
        pass
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(f"cluster.spec.options do not fit {cls}: ")
    # What was half made goes here, not while another test runs.
    del refused
    gc.collect()


def test_a_batch_system_that_is_not_here_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    model = stub_config(tmp_path / "model")
    with (
        pytest.raises(ClusterError, match="sbatch is not here; run geoseg where jobs"),
        connect(of_class(SLURM, SMALL, workers=1), model, parts=1),
    ):
        pass


def test_workers_that_nobody_asked_for_are_not_waited_for_in_silence(
    tmp_path: Path,
) -> None:
    model = stub_config(tmp_path / "model")
    with (
        pytest.raises(ClusterError, match="no worker joined within 1 s; set --workers"),
        connect(
            of_class("distributed.LocalCluster", IN_PROCESS, timeout=1), model, parts=1
        ),
    ):
        pass


def test_class_and_options_are_set_on_the_command_line() -> None:
    composed = compose(
        "segment",
        [
            "scenes=[a.tif]",
            "out=out",
            "clusters=spec",
            "cluster.spec.cls=distributed.LocalCluster",
            "cluster.spec.options.n_workers=3",
            "cluster.spec.options.worker_kwargs={death_timeout: 60}",
            "cluster.spec.maximum=4",
        ],
    )
    spec = convert(composed, SegmentConfig).cluster.spec
    assert spec == SpecConfig(
        "distributed.LocalCluster",
        {"n_workers": 3, "worker_kwargs": {"death_timeout": 60}},
        maximum=4,
    )
