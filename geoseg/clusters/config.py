"""What a recipe says of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from geoseg.clusters.secrets import masked
from geoseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SpecConfig:
    """A cluster of any class that distributed can scale.

    The path is imported and called: it comes from the user's recipe or call alone,
    never from scenes, models or a run directory (contract C12).
    """

    cls: str
    """Import path of a subclass of `distributed.deploy.Cluster`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the class. Passwords and tokens are not recorded."""
    minimum: int = 1
    """With `maximum`: workers that are always there."""
    maximum: int | None = None
    """Let the number of workers follow the work, up to this many; None: `workers`."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: The range of workers is empty.
        """
        if self.minimum < 1 or (self.maximum or self.minimum) < self.minimum:
            raise ConfigError(
                f"cluster.spec: {self.minimum} to {self.maximum} workers is no range; "
                "use a minimum of 1 or more, and a maximum that is not below it"
            )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Certificates for servers that talk over TLS; None: what Dask is configured to."""

    ca: Path | None = None
    """Certificate of the authority that signed all others, PEM."""
    cert: Path | None = None
    """Certificate of client and, where geoseg starts them, scheduler and workers."""
    key: Path | None = None
    """Its key; None: it stands in the file of the certificate."""

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            ConfigError: A part is missing.
        """
        if (self.ca is None) != (self.cert is None) or (self.key and not self.cert):
            raise ConfigError(
                "cluster.tls needs both ca and cert, and key where it is a file of its "
                "own"
            )


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the work runs."""

    workers: int | None = None
    """Workers to start; None: on this machine by GPUs, or by cores and memory;
    elsewhere as the class decides."""
    threads: int = 2
    """Threads of a worker, >= 2 so that blending never waits behind prediction."""
    scheduler: str | None = None
    """Address of a running scheduler; None starts a local cluster."""
    scheduler_file: Path | None = None
    """Instead of its address: the file that a scheduler writes about itself."""
    spec: SpecConfig | None = None
    """Instead of a scheduler: a class that starts one, and workers."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    """Certificates."""
    timeout: float = 30.0
    """Seconds to wait for the scheduler and its first worker."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number is too small, or two clusters are named.
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
        if self.scheduler is not None and not self.scheduler.strip():
            raise ConfigError(
                "cluster.scheduler is empty; give an address, tcp://HOST:8786, or null "
                "for workers on this machine"
            )
        named = [
            f"cluster.{name}"
            for name in ("scheduler", "scheduler_file", "spec")
            if getattr(self, name) is not None
        ]
        if len(named) > 1:
            raise ConfigError(f"{' and '.join(named)} are two clusters; give one")
        if self.workers is not None and self.spec is not None and self.spec.maximum:
            raise ConfigError(
                "cluster.workers and cluster.spec.maximum are two numbers of workers; "
                "give one"
            )

    @property
    def is_local(self) -> bool:
        """Whether geoseg starts the workers on this machine."""
        return not (self.scheduler or self.scheduler_file or self.spec)

    def recorded(self) -> ClusterConfig:
        """As it is recorded: the same from any folder, and without secrets."""
        tls, spec = self.tls, self.spec
        if spec is not None:
            spec = replace(spec, options=cast(dict[str, Any], masked(spec.options)))
        return replace(
            self,
            spec=spec,
            scheduler_file=self.scheduler_file and self.scheduler_file.absolute(),
            tls=TlsConfig(
                ca=tls.ca and tls.ca.absolute(),
                cert=tls.cert and tls.cert.absolute(),
                key=tls.key and tls.key.absolute(),
            ),
        )
