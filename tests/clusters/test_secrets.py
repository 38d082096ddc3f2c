"""What is recorded of a cluster's options."""

from __future__ import annotations

from typing import Any

import pytest

from geoseg.clusters.config import ClusterConfig, SpecConfig
from geoseg.clusters.opening import check_cluster
from geoseg.clusters.secrets import MASK
from geoseg.errors import ConfigError


def recorded(options: dict[str, Any]) -> dict[str, Any]:
    config = ClusterConfig(spec=SpecConfig("distributed.LocalCluster", options))
    spec = config.recorded().spec
    assert spec is not None
    assert config.spec is not None
    assert config.spec.options is options
    return spec.options


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWD",
        "apiToken",
        "api_key",
        "AWS_SECRET_ACCESS_KEY",
        "secrets",
    ],
)
@pytest.mark.parametrize("value", ["hunter2", 1234, {"a": "hunter2"}, ["hunter2"]])
def test_values_that_are_named_like_secrets_are_not_recorded(
    name: str, value: object
) -> None:
    assert recorded({name: value, "x": 1}) == {name: MASK, "x": 1}
    below = {"worker_options": [{"env": {name: value, "OMP_NUM_THREADS": 1}}]}
    want = {"worker_options": [{"env": {name: MASK, "OMP_NUM_THREADS": 1}}]}
    assert recorded(below) == want


def test_secrets_in_commands_and_addresses_are_not_recorded() -> None:
    options = {
        "prologue": ["export API_TOKEN='a b' X=1", "run --password hunter2 --fast"],
        "image": "https://me:hunter2@host/x",
    }
    assert recorded(options) == {
        "prologue": [f"export API_TOKEN={MASK} X=1", f"run --password {MASK} --fast"],
        "image": "https://host/x",
    }


def test_what_is_no_secret_stays() -> None:
    options = {"name": "geoseg", "password": None, "security": True, "key_file": "k"}
    assert recorded(options) == options


def test_a_recorded_call_asks_for_what_was_not_recorded() -> None:
    options = recorded({"auth": {"token": "hunter2"}})
    spec = SpecConfig("distributed.LocalCluster", options)
    with pytest.raises(
        ConfigError, match=r"^cluster.spec.options.auth.token is not recorded in run"
    ):
        check_cluster(ClusterConfig(spec=spec))
