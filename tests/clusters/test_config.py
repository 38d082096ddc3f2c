"""What a recipe may say of the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geoseg.clusters.config import ClusterConfig, SpecConfig, TlsConfig
from geoseg.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 0}, "0 workers"),
        ({"workers": -1}, "-1 workers"),
        ({"threads": 1}, "2 or more"),
        ({"timeout": 0.0}, "timeout"),
    ],
)
def test_numbers_that_make_no_cluster_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"scheduler": "tcp://host:1", "scheduler_file": Path("s.json")},
            "cluster.scheduler and cluster.scheduler_file are two clusters",
        ),
        (
            {"scheduler": "tcp://host:1", "spec": SpecConfig("a.B")},
            "cluster.scheduler and cluster.spec are two clusters",
        ),
        (
            {"workers": 2, "spec": SpecConfig("a.B", maximum=3)},
            "two numbers of workers",
        ),
        # As of an unset variable: it would have run on this machine in silence.
        ({"scheduler": ""}, "cluster.scheduler is empty"),
    ],
)
def test_one_cluster_is_named_and_one_number(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(**fields)


@pytest.mark.parametrize("limits", [(0, 2), (3, 2), (-1, None)])
def test_a_range_of_workers_that_is_none_is_refused(
    limits: tuple[int, int | None],
) -> None:
    with pytest.raises(ConfigError, match="is no range"):
        SpecConfig("a.B", minimum=limits[0], maximum=limits[1])


@pytest.mark.parametrize(
    "files", [{"ca": "ca.pem"}, {"cert": "cert.pem"}, {"key": "key.pem"}]
)
def test_half_of_the_certificates_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="needs both ca and cert"):
        TlsConfig(**{name: Path(file) for name, file in files.items()})
