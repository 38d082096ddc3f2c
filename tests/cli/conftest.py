"""A run of `segment` that is only recorded, for tests of what leads to it."""

from __future__ import annotations

import pytest
from commands import RecordedRun


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedRun:
    """Replace the job of `segment`."""
    run = RecordedRun()
    monkeypatch.setattr("geoseg.pipelines.segment.run", run)
    return run
