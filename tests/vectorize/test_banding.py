"""Bands that are traced ahead give the polygons of one pass, in bounded memory."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from class_masks import IDENTITY, blobs, class_masks, whole_window
from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize import PolygonBatch, trace_bands
from geoseg.vectorize.banding import _Ahead
from geoseg.vectorize.parts import NativePart

Mask = npt.NDArray[np.uint8]


def traced(
    mask: Mask,
    folder: Path,
    height: int,
    threads: int,
    confidence: Mask | None = None,
    *,
    reads: int = 1,
) -> PolygonBatch:
    """Trace a mask in bands."""

    def read(window: Window) -> tuple[Mask, Mask | None]:
        percents = None if confidence is None else confidence[window.slices]
        return mask[window.slices], percents

    batches = trace_bands(
        read,
        whole_window(mask),
        height=height,
        transform=IDENTITY,
        spill=folder,
        threads=threads,
        reads=reads,
    )
    return PolygonBatch.concat(list(batches))


def assert_same(found: PolygonBatch, expected: PolygonBatch) -> None:
    assert found.geometry.equals(expected.geometry)
    for name in ("class_id", "pixels", "confidence_sum", "bounds", "last_col"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@given(
    mask=class_masks(),
    height=st.integers(1, 13),
    threads=st.integers(2, 4),
    reads=st.integers(1, 4),
)
def test_bands_and_threads_change_no_byte(
    tmp_path_factory: pytest.TempPathFactory,
    mask: Mask,
    height: int,
    threads: int,
    reads: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 101, mask.shape).astype(np.uint8)
    expected = traced(mask, folder, len(mask), 1, confidence)
    found = traced(mask, folder, height, threads, confidence, reads=reads)
    assert_same(found, expected)


def test_many_bands_of_a_map(tmp_path: Path) -> None:
    mask = blobs(600, 5, sigma=2.0)
    mask[100:140, 200:500] = NODATA
    expected = traced(mask, tmp_path, 600, 1)
    assert len(expected) > 1000
    for height, threads in ((7, 3), (64, 2), (599, 2)):
        assert_same(traced(mask, tmp_path, height, threads), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["stripes", "nested"])
def test_bands_that_one_half_of_the_join_runs_past_go_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracer: str, kind: str
) -> None:
    # Stripes close no polygon before the last row. In the other mask every band closes
    # some, and the frame around them stays open across all seams.
    if tracer == "numpy":
        pytest.skip("native operators are absent: without them there are no threads")
    mask = np.ones((400, 90), np.uint8)
    if kind == "stripes":
        mask[:, ::2] = 2
    else:
        mask[1::4, 10:80:2] = 3
    most, saved = 0, 0
    get, save = _Ahead.part, NativePart.save

    def part(ahead: _Ahead, index: int) -> object:
        nonlocal most
        found = get(ahead, index)
        held = [p for p in ahead._held.values() if isinstance(p, NativePart)]
        most = max(most, len(held) + len(ahead._started))
        return found

    def counted(part: NativePart, path: Path) -> None:
        nonlocal saved
        saved += 1
        save(part, path)

    monkeypatch.setattr(_Ahead, "part", part)
    monkeypatch.setattr(NativePart, "save", counted)
    found = traced(mask, tmp_path, 4, 2)
    assert most <= 8
    assert saved > 50
    monkeypatch.undo()
    assert_same(found, traced(mask, tmp_path, 400, 1))
    assert list(tmp_path.iterdir()) == []


def test_threads_read_at_the_same_time_and_each_band_once(
    tmp_path: Path, tracer: str
) -> None:
    if tracer == "numpy":
        pytest.skip("native operators are absent: without them there are no threads")
    meeting = threading.Barrier(2, timeout=30)
    rows: list[int] = []

    def read(window: Window) -> tuple[Mask, None]:
        rows.append(window.row)
        if window.row < 16:
            meeting.wait()  # breaks if nobody else comes
        return np.full((window.height, 5), window.row % 3, np.uint8), None

    batches = trace_bands(
        read, Window(0, 0, 64, 5), height=8, transform=IDENTITY, spill=tmp_path,
        threads=2, reads=1,
    )  # fmt: skip
    assert sum(len(batch) for batch in batches) == 8
    assert sorted(rows) == list(range(0, 64, 8))


def test_an_error_of_a_band_is_the_callers_and_threads_end(tmp_path: Path) -> None:
    before = threading.active_count()

    def read(window: Window) -> tuple[Mask, None]:
        if window.row == 40:
            raise OSError("the disk is gone")
        return np.full((window.height, 5), window.row % 3, np.uint8), None

    batches = trace_bands(
        read, Window(0, 0, 80, 5), height=8, transform=IDENTITY, spill=tmp_path,
        threads=2, reads=1,
    )  # fmt: skip
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches)
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_who_has_enough_closes_it(tmp_path: Path) -> None:
    before = threading.active_count()
    mask = np.arange(100, dtype=np.uint8).repeat(100).reshape(100, 100)
    batches = trace_bands(
        lambda window: (mask[window.slices], None),
        whole_window(mask), height=10, transform=IDENTITY, spill=tmp_path, threads=2,
        reads=1,
    )  # fmt: skip
    assert len(next(batches)) > 0
    batches.close()
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_values_stand_for_classes(tmp_path: Path, threads: int) -> None:
    mask = blobs(60, 5, sigma=2.0)
    stands = np.full(256, 9, np.uint8)
    stands[[0, 1, 2]] = 4  # merged
    stands[3] = 0  # nodata
    found = trace_bands(
        lambda window: (mask[window.slices], None),
        whole_window(mask), height=16, transform=IDENTITY, spill=tmp_path,
        threads=threads, reads=1, nodata=0, classes=stands,
    )  # fmt: skip
    expected = traced(np.where(mask == 3, NODATA, stands[mask]), tmp_path, 60, 1)
    assert_same(PolygonBatch.concat(list(found)), expected)
    assert set(expected.class_id) == {4, 9}
