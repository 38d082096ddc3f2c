"""Clusters of any class: it starts a scheduler and workers by whatever means it has."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from distributed import Client, SpecCluster, SSHCluster, SubprocessCluster
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.utils import import_term

from geoseg.clusters import jobs
from geoseg.clusters.client import leave
from geoseg.clusters.config import ClusterConfig, SpecConfig
from geoseg.clusters.security import security_of
from geoseg.errors import ClusterError, ConfigError

logger = logging.getLogger(__name__)

_GOODBYE = 30.0
"""Seconds that a cluster has to end its workers."""

_LOOK = 5.0
"""Seconds after which a queue is asked what became of jobs."""

FUNCTIONS = (SSHCluster, SubprocessCluster)
"""What distributed writes as a function that makes a `SpecCluster`."""

EXTRAS = {"dask_jobqueue": "'geoseg[slurm]'", "dask_kubernetes": "dask-kubernetes"}
"""What to install for classes that people ask for."""


@contextmanager
def cluster_of_class(
    config: ClusterConfig, spec: SpecConfig, parts: int
) -> Iterator[Any]:
    """Give a client of a new cluster, which ends with the block.

    Args:
        config: Number of workers, security, and how long to wait.
        spec: The class and its arguments.
        parts: Parts there are to do: no more workers are asked for.

    Raises:
        ConfigError: The class or its arguments are wrong.
        ClusterError: It does not start, or no worker joins.
    """
    make = find_class(spec.cls)
    with ExitStack() as ending:
        cluster = _make(make, spec, config)
        ending.callback(_close, cluster)
        client = Client(cluster, timeout=config.timeout, set_as_default=False)
        ending.callback(leave, client)
        _scale(cluster, config.workers, spec, parts)
        _wait_for_worker(client, cluster, config)
        yield client


def find_class(path: str) -> Callable[..., Any]:
    """Import the class of a cluster.

    Raises:
        ConfigError: There is none of this name, or it is something else.
    """
    try:
        found = import_term(path)
    except (Exception, SystemExit) as error:  # A module may raise anything.
        package = path.split(".")[0]
        hint = "package.module.Class is what it looks like"
        if "." in path and getattr(error, "name", None) == package:
            hint = f"pip install {EXTRAS.get(package, f'what {package} belongs to')}"
        raise ConfigError(
            f"cluster.spec.cls: {path!r} cannot be imported ({_one_line(error)}); "
            f"{hint}"
        ) from error
    # Checked before anything is called: a path names a function as well.
    is_class = inspect.isclass(found) and issubclass(found, Cluster)
    if not is_class and found not in FUNCTIONS:
        raise ConfigError(
            f"cluster.spec.cls: {path} is no class of clusters; name a subclass of "
            "distributed.SpecCluster, such as distributed.LocalCluster"
        )
    make: Callable[..., Any] = found
    return make


def _make(make: Callable[..., Any], spec: SpecConfig, config: ClusterConfig) -> Any:  # noqa: ANN401 (distributed is untyped)
    options = dict(spec.options)
    security = security_of(config.tls)
    if security is not None:
        options.setdefault("security", security)
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"cluster.spec.options do not fit {spec.cls}: {_one_line(error)}"
        ) from error
    except Exception as error:  # Whatever a class meets that starts machines.
        raise ClusterError(_did_not_start(spec.cls, error)) from error


def _scale(
    cluster: Any,  # noqa: ANN401
    workers: int | None,
    spec: SpecConfig,
    parts: int,
) -> None:
    """Ask for workers, and hear what is refused."""
    number = workers if spec.maximum is None else spec.minimum
    if number is None:
        return  # The class has its own.

    try:
        cluster.sync(_grow, cluster, min(number, parts))
    except Exception as error:
        raise ClusterError(_did_not_start(spec.cls, error)) from error
    if spec.maximum is not None:
        most = max(spec.minimum, min(spec.maximum, parts))
        cluster.adapt(minimum=min(number, parts), maximum=most)


async def _grow(cluster: Any, workers: int) -> None:  # noqa: ANN401
    cluster.scale(workers)
    if not isinstance(cluster, SpecCluster):
        return
    try:
        # `scale` alone leaves errors, such as a refused job, to a log.
        await cluster._correct_state()
    except BaseException:
        for worker in cluster.workers.values():
            if worker.status == Status.created:
                # Or it could not be closed.
                worker.status = Status.failed
        raise


def _wait_for_worker(client: Any, cluster: Any, config: ClusterConfig) -> None:  # noqa: ANN401
    deadline = time.monotonic() + config.timeout
    while True:
        left = deadline - time.monotonic()
        try:
            client.wait_for_workers(1, timeout=max(0.1, min(_LOOK, left)))
        except OSError as error:  # TimeoutError among them
            queued = jobs.state(cluster)
            if queued.alive and left > _LOOK:
                continue
            raise ClusterError(
                f"no worker joined within {config.timeout:g} s"
                f"{queued.said or '; set --workers, or raise cluster.timeout'}"
                if queued.alive
                else f"no worker joined{queued.said}"
            ) from error
        else:
            return


def _close(cluster: Any) -> None:  # noqa: ANN401
    try:
        cluster.close(timeout=_GOODBYE)
    except TimeoutError:
        logger.warning(
            "%s did not end its workers within %g s%s; they end by themselves",
            type(cluster).__name__,
            _GOODBYE,
            jobs.state(cluster).said,
        )


def _did_not_start(path: str, error: BaseException) -> str:
    return f"{path} did not start: {jobs.refusal(error) or _one_line(error)}"


def _one_line(error: BaseException) -> str:
    """Say what an error says, and what it came from: "failed to start" is no reason."""
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    said = [str(one) or type(one).__name__ for one in (error, first)]
    return " ".join(": ".join(dict.fromkeys(said)).split())
