"""A model folder for each test to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A folder that geoseg wrote."""
    return tiny_models.save_segmenter(tmp_path / "model")
