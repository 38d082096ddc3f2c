"""Which kind of cluster a recipe asks for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from geoseg.clusters.config import ClusterConfig
from geoseg.clusters.given import given_cluster
from geoseg.clusters.local import local_cluster
from geoseg.clusters.secrets import masks
from geoseg.clusters.security import security_of
from geoseg.clusters.spec import cluster_of_class, find_class
from geoseg.errors import ConfigError

if TYPE_CHECKING:
    from geoseg.inference import PredictorConfig


def check_cluster(config: ClusterConfig) -> None:
    """Refuse what cannot become a cluster, before the scenes are looked at.

    Raises:
        ConfigError: The class or the certificates are not there, or a secret is not.
    """
    security_of(config.tls)
    if config.spec is None:
        return
    find_class(config.spec.cls)
    lost = next(masks(config.spec.options, "cluster.spec.options"), None)
    if lost is not None:
        raise ConfigError(
            f"{lost} is not recorded in run.yaml; give it again with --set {lost}=..."
        )


def open_cluster(
    config: ClusterConfig, model: PredictorConfig, parts: int
) -> AbstractContextManager[Any]:
    """Return the client of a cluster with at least one worker, as a context.

    Args:
        config: Where the work runs.
        model: What the workers will load.
        parts: Parts there are to do: no more workers are started.
    """
    if config.is_local:
        return local_cluster(config, model, parts)
    if config.spec is not None:
        return cluster_of_class(config, config.spec, parts)
    return given_cluster(config)
