"""What a recipe may say of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from geoseg.clusters.config import ClusterConfig
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
