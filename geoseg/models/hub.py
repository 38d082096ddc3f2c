"""The ways in which geoseg calls Hugging Face: within bounds of time, and quietly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from geoseg.errors import ModelError

ANSWER_SECONDS = 8.0
"""Longest wait for the hub's first answer; it is asked twice."""


def fetch(name: str, patterns: Sequence[str]) -> Path:
    """Fetch files of a hub id into Hugging Face's cache, or find them there.

    Args:
        name: Hub id, "owner/model".
        patterns: Names of the files wanted, with wildcards.

    Returns:
        The local folder.

    Raises:
        ModelError: There is no such model, or no network and no copy in the cache.
    """
    # Not at the top: the hub's client is slow to import, and folders need none of it.
    from huggingface_hub import HfApi, snapshot_download

    wanted = list(patterns)
    # Exception: its client's HTTP library, which changed twice, has errors of its own.
    try:
        # snapshot_download alone would wait for its first answer for ever.
        revision = HfApi().model_info(name, timeout=ANSWER_SECONDS).sha
        found = snapshot_download(name, revision=revision, allow_patterns=wanted)
    except Exception as error:
        try:
            found = snapshot_download(
                name, allow_patterns=wanted, local_files_only=True
            )
        except Exception:
            raise ModelError(
                f"model '{name}' is no folder here and could not be had from the hub "
                f"({type(error).__name__}); check the spelling, the network, and that "
                "you are logged in if the model is gated"
            ) from error
    return Path(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars while geoseg calls it.

    What it reports on loading (a backbone that Mask2Former's authors did not try, keys
    it did not expect) is checked by geoseg, which raises errors of its own.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
