"""Warnings that users get as notes: above a progress bar, in a report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from geoseg.errors import GeosegWarning


@contextmanager
def heard(note: Callable[[str], None]) -> Iterator[None]:
    """Hand geoseg's warnings to `note` as they come; others go where they always do."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", GeosegWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], *place: object
        ) -> None:
            if issubclass(category, GeosegWarning):
                note(str(message))
            else:
                cast(Callable[..., None], others)(message, category, *place)

        warnings.showwarning = cast(Callable[..., None], show)
        yield
