"""Which workers may take part: those that would write what the client would."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg import __version__
from geoseg.errors import ClusterError, ModelError

if TYPE_CHECKING:
    from geoseg.inference import PredictorConfig

REFUSALS = "geoseg-refusals"
"""Topic of the scheduler's events that says which workers were refused, and why."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a worker must have; travels with the model's plugin."""

    version: str
    """Version of geoseg."""
    native: bool
    """Whether the native library is loaded: the reference rounds otherwise."""
    model: PredictorConfig
    """Names the model's folder and the hash that it must have."""

    @classmethod
    def here(cls, model: PredictorConfig) -> Requirements:
        """Ask for what this process has."""
        return cls(__version__, _native(), model)

    def check(self, worker: str) -> None:
        """Refuse a worker that has something else; called on it.

        Args:
            worker: Its address, for the message.

        Raises:
            ClusterError: Says what the worker has and what is wanted.
        """
        if __version__ != self.version:
            raise ClusterError(
                f"worker {worker} has geoseg {__version__}, and the run was started "
                f"with {self.version}; install the same version there"
            )
        native = _native()
        if native != self.native:
            raise ClusterError(
                f"worker {worker} runs {_KERNELS[native]}, and the run was started "
                f"with {_KERNELS[self.native]}, whose results differ; see `geoseg "
                "info`, or set GEOSEG_OPS=none on both sides"
            )
        # Not above: the scheduler imports this module, and needs no torch.
        from geoseg.inference import check_weights

        try:
            check_weights(self.model)
        except ModelError as error:
            raise ClusterError(f"worker {worker} is of no use: {error}") from error


_KERNELS = {True: "the native operators", False: "no native operators"}


def _native() -> bool:
    from geoseg.ops import LIBRARY

    return LIBRARY.loaded


def refusal(plugin: str, worker: str, reason: object) -> dict[str, str]:
    """Event that tells of a refused worker.

    Args:
        plugin: Name of the plugin that it did not get.
        worker: Its address.
        reason: One line.
    """
    return {"plugin": plugin, "worker": worker, "reason": str(reason)}


def refusals(
    client: Any,  # noqa: ANN401 (distributed is untyped)
    plugin: str,
    workers: Collection[str],
) -> list[str]:
    """Why workers of a cluster were refused, the latest last.

    A scheduler that runs for long keeps what earlier runs were told.

    Args:
        client: Connected to the cluster.
        plugin: Name of the plugin that the run asks for.
        workers: Addresses of those that are there and do not have it. Each was looked
            at when the run began, or when it joined: what it was told last is of today.
    """
    found = dict[str, str]()
    for _, event in client.get_events(REFUSALS):
        if not isinstance(event, dict):
            continue  # from a worker with an older geoseg
        worker = event["worker"]
        if event["plugin"] == plugin and worker in workers:
            found.pop(worker, None)  # To be the last.
            found[worker] = event["reason"]
    return list(found.values())


def explain_refusal(client: Any, error: Exception) -> ClusterError:  # noqa: ANN401
    """Say why the workers of a cluster did not take the model.

    Args:
        client: Connected to the cluster.
        error: What handing out the model raised.
    """
    if isinstance(error, ClusterError):
        return error
    # A worker with another version may not even read what it is sent.
    others = []
    for worker, version in _installed(client).items():
        if version != __version__:
            others.append(f"worker {worker} has {version or 'no geoseg'}")
    who = "; ".join(others) or "a worker cannot import geoseg"
    return ClusterError(
        f"{who} ({type(error).__name__}: {error}); install geoseg {__version__} there"
    )


def _installed(client: Any) -> dict[str, str | None]:  # noqa: ANN401
    """Version of geoseg on each worker; None where it is not installed."""
    try:
        found = client.run(importlib.metadata.version, "geoseg", on_error="return")
    except OSError:
        return {}
    return {
        worker: value if isinstance(value, str) else None
        for worker, value in found.items()
    }
