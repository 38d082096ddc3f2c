"""Failures of disks and networks that may pass, told from those that stay."""

from __future__ import annotations

import errno

from geoseg.errors import SceneAccessError, SceneError

_PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY}
    | {errno.ENOLCK, errno.EREMOTEIO, errno.ECONNRESET, errno.ENOTCONN}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
)
"""What network disks say when they are away; a full disk stays full."""


def access_error(message: str, error: OSError) -> SceneError:
    """Make a scene's error of what the system says of its disk.

    Args:
        message: One line for the user.
        error: What was raised, perhaps as a result of another error.

    Returns:
        A `SceneAccessError` where another try may help.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            return SceneAccessError(message)
        cause = cause.__cause__
    return SceneError(message)
