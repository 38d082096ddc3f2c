"""Changing model folders, and the errors that follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import ModelError


def edit(path: Path, **changes: Any) -> None:  # noqa: ANN401 - JSON
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept))


def one_line_error(function: Callable[[], object]) -> str:
    """Return the message of a ModelError, which must be one line."""
    with pytest.raises(ModelError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message
