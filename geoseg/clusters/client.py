"""Clients that leave in time, and wait for the first worker."""

from __future__ import annotations

import logging
from typing import Any

from geoseg.errors import ClusterError

logger = logging.getLogger(__name__)

_GOODBYE = 5.0
"""Seconds that a scheduler has to answer when its client leaves."""


def leave(client: Any) -> None:  # noqa: ANN401 (distributed is untyped)
    """Close a client; its scheduler may be gone, and not answer the good-bye."""
    log = logging.getLogger("distributed.client")
    level = log.level
    # It would print the tracebacks of its own attempts to come back.
    log.setLevel(logging.CRITICAL)
    try:
        client.close(timeout=_GOODBYE)
    except TimeoutError:
        # A busy scheduler: what the run came to counts, not how it was left.
        logger.debug("the scheduler did not say good-bye", exc_info=True)
    finally:
        log.setLevel(level)


def wait_for_worker(client: Any, timeout: float, message: str) -> None:  # noqa: ANN401
    """Return when there is a worker.

    Raises:
        ClusterError: There is none within `timeout` seconds; says `message`.
    """
    try:
        client.wait_for_workers(1, timeout=timeout)
    except OSError as error:  # TimeoutError among them
        raise ClusterError(message) from error
