"""Chips: drawn from (seed, step, sample), image and labels moved together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.errors import ConfigError

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
    labels[7, 390] = 1  # one pixel in 160 000
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
