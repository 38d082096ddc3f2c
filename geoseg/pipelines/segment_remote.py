"""What servers are asked of scenes on other machines, side by side."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from geoseg.discovery import SceneFile
from geoseg.errors import SceneError
from geoseg.io.location import is_remote, suffix_of, tree_parts, without_secrets
from geoseg.io.vsi import renew

Told = TypeVar("Told")

_REQUESTS = 16
"""Servers that are asked at a time whether a scene is there."""

_SILENCE = 16
"""Requests that a server may leave unanswered before no more are made."""

AHEAD = 8
"""Scenes of other machines that are looked at side by side."""

LOOK_UP = 1.0
"""Seconds of waiting for a server after which others may have their turn."""


def unreachable_scenes(files: Sequence[SceneFile]) -> dict[str, str]:
    """Ask for all scenes of other machines, side by side: each may take its time.

    Returns:
        Id of each that does not answer or is not there, and the reason.
    """
    remote = [file for file in files if is_remote(file.path)]
    silent = Counter[str]()
    with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="geoseg-ask") as threads:
        reasons = list(threads.map(partial(_reason, silent=silent), remote))
    return {
        file.scene_id: reason
        for file, reason in zip(remote, reasons, strict=True)
        if reason is not None
    }


def looked_at(
    files: Iterable[SceneFile], look: Callable[[SceneFile], Told]
) -> Generator[tuple[SceneFile, Callable[[], Told]] | None]:
    """Look at scenes in their order, those of other machines some ahead, side by side.

    Args:
        files: Scenes; a local one is looked at only when its turn comes.
        look: Called in threads for scenes of other machines; with each other's, and
            with whatever the caller does meanwhile.

    Yields:
        A scene, and what gives what was found, or raises what was raised. None: the
        next one's server has not answered yet.
    """
    threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="geoseg-plan")
    waiting = deque[tuple[SceneFile, Future[Told] | None]]()
    try:
        for file in files:
            ask = threads.submit(look, file) if _is_apart(file) else None
            waiting.append((file, ask))
            if len(waiting) > AHEAD:
                yield from _first_of(waiting, look)
        while waiting:
            yield from _first_of(waiting, look)
    finally:
        # A run that is asked to stop waits for no server.
        threads.shutdown(wait=False, cancel_futures=True)


def _is_apart(file: SceneFile) -> bool:
    """Whether a thread may look: rasterio, which opens VRTs, switches off warnings."""
    return is_remote(file.path) and suffix_of(file.path) != ".vrt"


def _first_of(
    waiting: deque[tuple[SceneFile, Future[Told] | None]],
    look: Callable[[SceneFile], Told],
) -> Iterator[tuple[SceneFile, Callable[[], Told]] | None]:
    file, ask = waiting.popleft()
    if ask is None:
        yield file, partial(look, file)
        return
    while not _has_ended(ask):
        yield None
    yield file, ask.result


def _has_ended(ask: Future[Told]) -> bool:
    try:
        ask.exception(LOOK_UP)
    except TimeoutError:
        return False
    return True


def _reason(file: SceneFile, silent: Counter[str]) -> str | None:
    """Say why a scene cannot be reached.

    Each request to a dead server takes seconds, those to ten thousand scenes hours.

    Args:
        file: The scene.
        silent: How often each server left a request unanswered since its last answer.
    """
    host = tree_parts(file.path)[1]
    if silent[host] >= _SILENCE:
        return f"{host} left {_SILENCE} requests unanswered; run again when it is back"
    try:
        renew(file.path)
    except SceneError as error:
        if "HTTP response code" in str(error):
            silent[host] = 0
        else:
            silent[host] += 1
        return one_line(error)
    silent[host] = 0
    return None


def one_line(reason: object) -> str:
    """Make a reason fit for the report."""
    return without_secrets(" ".join(str(reason).split()))
