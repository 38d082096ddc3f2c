"""A Dask cluster in this process: its workers are threads, and see what tests patch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, LocalCluster


@contextmanager
def thread_workers(workers: int = 1, **options: Any) -> Iterator[Client]:  # noqa: ANN401
    """Run a scheduler and workers of two threads until the block ends.

    Args:
        workers: How many.
        options: More of `LocalCluster`.

    Yields:
        A client, which is nobody's default one; see `cluster_of`.
    """
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=2,
            processes=False,
            dashboard_address=":0",
            **options,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def cluster_of(client: Client) -> LocalCluster:
    """Return the cluster of a client of `thread_workers`."""
    assert isinstance(client.cluster, LocalCluster)
    return client.cluster
