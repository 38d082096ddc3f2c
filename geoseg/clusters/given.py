"""A scheduler that runs already, with workers of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from distributed import Client
from distributed.comm.core import connect as connect_to
from distributed.security import Security

from geoseg._processes import read_address
from geoseg.clusters.client import leave, wait_for_worker
from geoseg.clusters.config import ClusterConfig
from geoseg.clusters.security import advice, check_address, security_of
from geoseg.errors import ClusterError


@contextmanager
def given_cluster(config: ClusterConfig) -> Iterator[Any]:
    """Give a client of the scheduler that `config` names.

    Raises:
        ClusterError: It does not answer, or has no worker.
    """
    security = security_of(config.tls)
    address = _address(config)
    check_address(address, security)
    try:
        _knock(address, config.timeout, security)
        client = Client(
            address, timeout=config.timeout, security=security, set_as_default=False
        )
    except Exception as error:  # A port of another service answers anything.
        raise ClusterError(
            f"scheduler {address} did not answer within {config.timeout:g} s; "
            f"{advice(address, error)}"
        ) from error
    with ExitStack() as ending:
        ending.callback(leave, client)
        wait_for_worker(
            client,
            config.timeout,
            f"scheduler {address} has no worker; start some with `dask "
            f"worker {address} --nthreads {config.threads}`",
        )
        yield client


def _address(config: ClusterConfig) -> str:
    """Return the scheduler's address; its file may be written a little later."""
    if config.scheduler is not None:
        return config.scheduler
    assert config.scheduler_file is not None
    deadline = time.monotonic() + config.timeout
    while (address := read_address(config.scheduler_file)) is None:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the scheduler file {config.scheduler_file} did not name an address "
                f"within {config.timeout:g} s; start `dask scheduler --scheduler-file "
                f"{config.scheduler_file}`, on a file system that both see"
            )
        time.sleep(0.1)
    return address


def _knock(address: str, timeout: float, security: Security | None) -> None:
    """Shake hands with a scheduler; `Client` would wait for a silent one for ever."""
    how = (security or Security()).get_connection_args("client")

    async def knock() -> None:
        async with asyncio.timeout(timeout):
            comm = await connect_to(address, timeout=timeout, **how)
        comm.abort()

    # In a thread: the caller's may run an event loop, as notebooks do.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, knock()).result()
