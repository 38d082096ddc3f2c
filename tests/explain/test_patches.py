"""Patches are numbered in the order of tokens."""

from __future__ import annotations

import pytest

from geoseg.errors import TilingError
from geoseg.explain.patches import patch_grid
from geoseg.grid import Window


def test_a_tile_of_720_has_45_rows_of_45_patches() -> None:
    patches = patch_grid(720, 16)
    assert len(patches) == 45 * 45
    assert [patch.number for patch in patches] == list(range(2025))
    last = patches[-1]
    assert (last.row, last.col, last.window) == (44, 44, Window(704, 704, 16, 16))
    assert patches[46].window == Window(16, 16, 16, 16)


def test_a_part_of_a_patch_is_refused() -> None:
    with pytest.raises(TilingError, match="use 704 or 720"):
        patch_grid(710, 16)
