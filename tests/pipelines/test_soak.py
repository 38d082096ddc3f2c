"""A few kills of each process; `make soak` has many."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from soak import Soak, Victim, passed


@pytest.mark.slow
@pytest.mark.parametrize("victim", get_args(Victim))
def test_a_run_whose_processes_are_killed_is_right_in_the_end(
    tmp_path: Path, victim: Victim
) -> None:
    trials = list(Soak(tmp_path).trials(victim, kills=4))
    assert passed(trials), trials
