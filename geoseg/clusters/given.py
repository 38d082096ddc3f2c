"""A scheduler that runs already, with workers of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from distributed import Client
from distributed.comm.core import connect as connect_to

from geoseg.clusters.client import leave, wait_for_worker
from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ClusterError


@contextmanager
def given_cluster(config: ClusterConfig) -> Iterator[Any]:
    """Give a client of the scheduler that `config` names.

    Raises:
        ClusterError: It does not answer, or has no worker.
    """
    try:
        _knock(str(config.scheduler), config.timeout)
        client = Client(config.scheduler, timeout=config.timeout, set_as_default=False)
    except Exception as error:  # A port of another service answers anything.
        raise ClusterError(
            f"scheduler {config.scheduler} did not answer within {config.timeout:g} s; "
            "check the address, and that `dask scheduler` runs there"
        ) from error
    with ExitStack() as ending:
        ending.callback(leave, client)
        wait_for_worker(
            client,
            config.timeout,
            f"scheduler {config.scheduler} has no worker; start some with `dask "
            f"worker {config.scheduler} --nthreads {config.threads}`",
        )
        yield client


def _knock(address: str, timeout: float) -> None:
    """Shake hands with a scheduler; `Client` would wait for a silent one for ever."""

    async def knock() -> None:
        async with asyncio.timeout(timeout):
            comm = await connect_to(address, timeout=timeout)
        comm.abort()

    # In a thread: the caller's may run an event loop, as notebooks do.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, knock()).result()
