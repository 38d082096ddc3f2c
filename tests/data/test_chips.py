"""Chips: drawn from (seed, step, sample), image and labels moved together."""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data import survey
from geoseg.data.augment import recolor
from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import (
    IGNORE,
    LabelledPixels,
    LabelledScene,
    LabelledSource,
)
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.grid import Window

PLAIN = ChipConfig(scale=(1.0, 1.0), color=0.0, balance=0.0)


def sampler(
    *scenes: LabelledScene,
    classes: int = 3,
    **changes: Any,  # noqa: ANN401
) -> ChipSampler:
    return ChipSampler(scenes, classes, dataclasses.replace(PLAIN, **changes))


def numbered(height: int, width: int) -> LabelledScene:
    """Make a scene whose pixels hold their label in the red band."""
    labels = np.arange(height * width, dtype=np.int64).reshape(height, width) % 200
    image = np.stack([labels, labels // 2, 255 - labels]).astype(np.uint8)
    return LabelledScene("numbered", image, labels.astype(np.uint8))


def noise(seed: int = 0) -> LabelledScene:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, 60, 50), np.uint8)
    return LabelledScene("noise", image, rng.integers(0, 3, (60, 50)).astype(np.uint8))


def test_same_seed_and_step_give_the_same_batch() -> None:
    drawn = [
        sampler(noise(), noise(1), scale=(0.5, 2.0), color=0.3, balance=0.5).batch(
            seed, step, 3, 32
        )
        for seed, step in [(1, 5), (1, 5), (1, 6), (2, 5)]
    ]
    images = [images for images, _ in drawn]
    assert torch.equal(images[0], images[1])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[3])
    assert not torch.equal(images[0][0], images[0][1])


def test_no_generator_but_its_own_is_asked_or_changed() -> None:
    source = sampler(noise(), scale=(0.5, 2.0), color=0.3, balance=0.5)
    torch_state = torch.get_rng_state()
    numpy_state = pickle.dumps(np.random.get_state())  # noqa: NPY002
    first = source.batch(3, 1, 2, 32)[0]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert numpy_state == pickle.dumps(np.random.get_state())  # noqa: NPY002
    torch.manual_seed(99)
    # Elsewhere, in another order, it is the same.
    copy = pickle.loads(pickle.dumps(source))
    copy.batch(3, 0, 2, 32)
    assert torch.equal(first, copy.batch(3, 1, 2, 32)[0])


def test_sample_does_not_depend_on_the_batch_size() -> None:
    source = sampler(noise(), scale=(0.5, 2.0), color=0.3)
    assert torch.equal(source.batch(0, 1, 4, 32)[0][:2], source.batch(0, 1, 2, 32)[0])


@settings(max_examples=30)
@given(step=st.integers(0, 10_000))
def test_image_and_labels_move_together(step: int) -> None:
    scene = numbered(40, 37)
    images, labels = sampler(scene, classes=200).batch(0, step, 2, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal((images[:, 0] * 255).round().long(), labels)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_labels_are_those_of_the_magnified_place() -> None:
    # A slow ramp of 4 px steps: after any magnification the red band still tells it.
    labels = np.repeat(np.arange(32, dtype=np.uint8), 4)[None].repeat(128, 0)
    image = np.stack([labels * 8] * 3)
    scene = LabelledScene("ramp", image, labels)
    images, drawn = sampler(scene, classes=32, scale=(0.5, 2.0)).batch(0, 0, 16, 64)
    inner = np.s_[:, 4:-4, 4:-4]
    red = (images[:, 0] * 255 / 8)[inner]
    assert float((red - drawn[inner]).abs().max()) <= 1.0
    spans = {int(chip.max() - chip.min()) for chip in drawn}
    assert min(spans) <= 10 <= 20 <= max(spans)  # 64 px show 8 to 32 steps


def test_enlarged_labels_are_not_shifted() -> None:
    # A hard edge, twice as large: it must lie in the middle of image and labels alike.
    labels = np.zeros((20, 20), np.uint8)
    labels[:, 10:] = 1
    scene = LabelledScene("edge", np.stack([labels * 255] * 3), labels)
    images, drawn = sampler(scene, classes=2).batch(0, 0, 8, 30)
    for image, label in zip(images, drawn, strict=True):
        assert torch.equal(label, label.flip(0)) or torch.equal(label, label.flip(1))
        assert float(label.float().mean()) == 0.5
        assert torch.equal(image[0] > 0.5, label == 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 0}, "chips.size is 0"),
        ({"scale": (2.0, 1.0)}, "the smaller one first"),
        ({"scale": (0.0, 1.0)}, "above 0"),
        ({"balance": 1.5}, "chips.balance is 1.5"),
        ({"color": -1.0}, "chips.color is -1.0"),
    ],
)
def test_numbers_that_make_no_chip_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ChipConfig(**changes)


@settings(max_examples=20)
@given(step=st.integers(0, 10_000), size=st.sampled_from([16, 24, 48]))
def test_image_that_equals_its_mask_stays_so_at_any_size(step: int, size: int) -> None:
    # Patches of 12 pixels: away from their rims, a resized image still equals its mask.
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 3, (8, 8)), np.ones((12, 12), np.int64))
    image = np.stack([100 * labels] * 3).astype(np.uint8)
    scene = LabelledScene("patches", image, labels.astype(np.uint8))
    source = sampler(scene, scale=(0.5, 2.0), balance=0.5)
    images, drawn = source.batch(0, step, 2, size)
    off = (images[:, 0] * 2.55 - drawn).abs() > 0.01
    patched = torch.nn.functional.max_pool2d(drawn.float()[:, None], 7, 1, 3)
    inner = patched == -torch.nn.functional.max_pool2d(-drawn.float()[:, None], 7, 1, 3)
    assert not (off & inner[:, 0]).any()


def test_places_without_labels_are_passed_over() -> None:
    labels = np.full((200, 200), IGNORE, np.uint8)
    labels[90:110, 90:110] = 0
    scene = LabelledScene("island", np.zeros((3, 200, 200), np.uint8), labels)
    _, drawn = sampler(scene).batch(0, 0, 40, 32)
    # A place drawn once shows the island in a tenth of all cases.
    assert float((drawn != IGNORE).flatten(1).any(1).float().mean()) > 0.4


def test_a_rare_class_is_looked_for_in_all_scenes() -> None:
    plain = [
        LabelledScene(
            str(i), np.zeros((3, 40, 40), np.uint8), np.zeros((40, 40), np.uint8)
        )
        for i in range(20)
    ]
    plain[13].labels[5, 5] = 1
    _, drawn = sampler(*plain, classes=2, balance=1.0).batch(0, 0, 40, 16)
    assert float((drawn == 1).flatten(1).any(1).float().mean()) > 0.3


def test_a_class_is_found_in_whatever_block_it_lies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survey, "BLOCK", 32)
    monkeypatch.setattr(survey, "_ONE_BLOCK", 32 * 32)
    labels = np.random.default_rng(0).integers(0, 3, (300, 200)).astype(np.uint8)
    labels[299, 199] = 3
    scene = LabelledScene("large", np.zeros((3, 300, 200), np.uint8), labels)
    _, drawn = sampler(scene, classes=4, balance=1.0).batch(0, 0, 30, 16)
    assert (drawn == 3).any()


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_any_number_of_bands(bands: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (bands, 40, 40), np.uint8)
    scene = LabelledScene("bands", image, np.zeros((40, 40), np.uint8))
    images, _ = sampler(scene, color=0.3, scale=(0.5, 2.0)).batch(0, 0, 2, 16)
    assert images.shape == (2, bands, 16, 16)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_nothing_to_cut_from_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"no scene to cut chips from; check data\.split"
    ):
        sampler()


def test_all_eight_turns_occur() -> None:
    image = np.zeros((3, 32, 32), np.uint8)
    image[:, 0, 1] = 255  # one mark tells the turn
    scene = LabelledScene("mark", image, np.zeros((32, 32), np.uint8))
    images, _ = sampler(scene).batch(0, 0, 100, 32)
    places = {tuple((chip[0] > 0.5).nonzero()[0].tolist()) for chip in images}
    assert len(places) == 8


def test_unlabelled_pixels_stay_unlabelled() -> None:
    labels = np.full((64, 64), IGNORE, np.uint8)
    labels[:, 32:] = 1
    scene = LabelledScene("half", np.zeros((3, 64, 64), np.uint8), labels)
    _, drawn = sampler(scene, scale=(0.5, 2.0), balance=1.0).batch(0, 0, 20, 32)
    assert set(drawn.unique().tolist()) == {1, IGNORE}


@pytest.mark.parametrize(("balance", "low", "high"), [(0.0, 0.0, 0.2), (1.0, 0.3, 1.0)])
def test_balance_shows_rare_classes(balance: float, low: float, high: float) -> None:
    labels = np.zeros((400, 400), np.uint8)
    labels[207, 390] = 1  # one pixel in 160 000
    scene = LabelledScene("rare", np.zeros((3, 400, 400), np.uint8), labels)
    _, drawn = sampler(scene, classes=2, balance=balance).batch(0, 0, 60, 32)
    share = float((drawn == 1).flatten(1).any(1).float().mean())
    assert low <= share <= high


def test_scenes_are_drawn_by_the_root_of_their_area() -> None:
    small = LabelledScene(
        "small", np.zeros((3, 40, 40), np.uint8), np.zeros((40, 40), np.uint8)
    )
    large = LabelledScene(
        "large", np.full((3, 80, 80), 255, np.uint8), np.zeros((80, 80), np.uint8)
    )
    images, _ = sampler(small, large).batch(0, 0, 600, 16)
    share = float((images.flatten(1).mean(1) > 0.5).float().mean())
    assert 0.6 < share < 0.73  # twice as often


def test_scenes_smaller_than_a_chip_are_magnified() -> None:
    images, labels = sampler(numbered(20, 30), classes=200).batch(0, 0, 2, 64)
    assert images.shape == (2, 3, 64, 64)
    assert labels.shape == (2, 64, 64)


def test_colours_change_within_bounds_and_labels_do_not() -> None:
    plain = sampler(noise()).batch(0, 0, 4, 32)
    changed = sampler(noise(), color=0.3).batch(0, 0, 4, 32)
    assert torch.equal(plain[1], changed[1])
    assert not torch.equal(plain[0], changed[0])
    assert 0 <= float(changed[0].min()) <= float(changed[0].max()) <= 1


def test_pixels_above_their_scale_stay_above_it() -> None:
    image = torch.full((3, 4, 4), 0.4)
    image[:, 1, 2] = 2.0
    changed = recolor(np.random.default_rng(0), image, 0.1)
    assert changed[:, 1, 2].min() > 1.5
    assert changed[:, 0, 0].max() < 0.6


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_pixels_below_zero_keep_what_they_show(bands: int) -> None:
    """Decibels and heights: not all of them are one value."""
    image = -20 * torch.rand(bands, 8, 8, generator=torch.Generator().manual_seed(0))
    for seed in range(5):
        changed = recolor(np.random.default_rng(seed), image, 0.25)
        for band, other in zip(image, changed, strict=True):
            pairs = torch.stack([band.flatten(), other.flatten()])
            assert float(torch.corrcoef(pairs)[0, 1]) > 0.9
            assert float(other.std()) > 0.5 * float(band.std())


class Broken:
    """A scene that cannot be read in part: its image, its labels, or where asked."""

    def __init__(
        self, name: str, label: int, *, rows: int = 0, labels_too: bool = False
    ) -> None:
        labels = np.full((40, 40), label, np.uint8)
        image = np.full((3, 40, 40), 9, np.uint8)
        self._scene = LabelledScene(name, image, labels)
        self.name, self.path, self.scale = name, None, 255.0
        self.grid = self._scene.grid
        self.rows, self.labels_too = rows, labels_too
        self.reads = 0

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Fail below some rows, none at first."""
        self.reads += 1
        if window.row_stop > self.rows:
            raise SceneError(f"{self.name} cannot be read")
        return self._scene.read(window, unknown)

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Fail once labels were looked at."""
        if self.labels_too and self.rows == 0:
            raise SceneError(f"the mask of {self.name} cannot be read")
        return self._scene.read_labels(window, unknown)


def skipping(*scenes: LabelledSource, balance: float = 0.5) -> ChipSampler:
    config = dataclasses.replace(PLAIN, balance=balance)
    index = [
        survey.SceneSurvey(
            np.bincount(np.array([int(scene.name)]), minlength=3)[None].astype(np.int32)
        )
        for scene in scenes
    ]
    return ChipSampler(scenes, 3, config, index=index, on_bad="skip")


def whole(name: str, label: int) -> LabelledScene:
    return LabelledScene(
        name, np.zeros((3, 40, 40), np.uint8), np.full((40, 40), label, np.uint8)
    )


@pytest.mark.parametrize("labels_too", [False, True])
def test_a_scene_that_breaks_gives_way_to_others_for_good(labels_too: bool) -> None:
    scenes: list[LabelledSource] = [Broken("0", 0, labels_too=labels_too)]
    scenes.append(whole("1", 1))
    source = skipping(*scenes)
    with pytest.warns(GeosegWarning, match="0 cannot be read"):
        _, drawn = source.batch(0, 0, 300, 8)
    # Also where it is the only one that holds what was wanted.
    assert (drawn == 1).all()
    bad = dataclasses.replace(source.config, balance=1.0)
    failing = ChipSampler(scenes, 3, bad, index=source.index)
    with pytest.raises(SceneError, match="0 cannot be read"):
        failing.batch(0, 0, 20, 8)


def test_all_others_are_tried_before_it_ends() -> None:
    bad = [Broken(str(number % 3), number % 3) for number in range(12)]
    with pytest.warns(GeosegWarning):
        _, drawn = skipping(*bad, whole("1", 1)).batch(0, 0, 30, 8)
    assert (drawn == 1).all()
    for scene in bad:
        scene.reads = 0
    with (
        pytest.warns(GeosegWarning),
        pytest.raises(SceneError, match="cannot be read"),
    ):
        skipping(*bad).chip((0, 0, 0), 8)
    assert [scene.reads for scene in bad] == [1] * 12


def test_a_scene_that_is_broken_in_part_is_drawn_again() -> None:
    scene = Broken("2", 2, rows=24)
    with pytest.warns(GeosegWarning, match="2 cannot be read"):
        _, drawn = skipping(scene, balance=0.0).batch(0, 0, 40, 8)
    assert (drawn == 2).all()
    scene.rows = scene.reads = 0
    with pytest.warns(GeosegWarning), pytest.raises(SceneError):
        skipping(scene).chip((0, 0, 0), 8)
    assert scene.reads == 8


def test_labels_that_changed_since_they_were_looked_at_are_told() -> None:
    scene = noise()
    chips = sampler(scene, balance=1.0)
    scene.labels[:] = IGNORE
    with pytest.raises(SceneError, match="labels of noise changed since"):
        chips.batch(0, 0, 1, 16)
