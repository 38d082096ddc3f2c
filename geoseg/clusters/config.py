"""What a recipe says of the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from geoseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the work runs."""

    workers: int | None = None
    """Worker processes of a local cluster; None: by GPUs, or by cores and memory."""
    threads: int = 2
    """Threads of a worker, >= 2 so that blending never waits behind prediction."""
    scheduler: str | None = None
    """Address of a running scheduler; None starts a local cluster."""
    timeout: float = 30.0
    """Seconds to wait for the scheduler and its first worker."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number is too small.
        """
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} workers do no work; use 1 or more")
        if self.threads < 2:
            raise ConfigError(
                f"cluster.threads is {self.threads}, and blending would wait behind "
                "prediction; use 2 or more"
            )
        if not self.timeout > 0:
            raise ConfigError(f"a timeout of {self.timeout} s is none; use more than 0")
