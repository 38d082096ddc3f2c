"""Hugging Face's own processor and post-processing on folders that geoseg writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny_models
import torch
from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.models import load_model, read_spec

Pixels = npt.NDArray[np.uint8]


def colored_blocks(side: int, *, seed: int = 0) -> Pixels:
    """Draw an image of blocks of one colour each, with some noise, (3, side, side)."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (3, side // 32 + 1, side // 32 + 1))
    image = np.kron(blocks, np.ones((1, 32, 32), np.int64))[:, :side, :side]
    noisy = image + rng.integers(-5, 6, image.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def predictor(folder: Path, tile_size: int) -> Predictor:
    spec = read_spec(folder, tile_size=tile_size)
    return Predictor(
        load_model(folder), spec, PredictorConfig(str(folder), "", tile_size)
    )


def test_whoever_may_read_the_configuration_may_read_the_weights(
    tmp_path: Path,
) -> None:
    folder = tiny_models.save_segmenter(tmp_path / "model")
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert len(set(modes.values())) == 1, modes


@pytest.mark.parametrize("side", [64, 720])
def test_processor_gives_the_predictors_input(tmp_path: Path, side: int) -> None:
    folder = tiny_models.save_segmenter(tmp_path)
    processor = AutoImageProcessor.from_pretrained(folder)
    image = colored_blocks(side)
    theirs = processor(image.transpose(1, 2, 0), return_tensors="pt")
    assert theirs["pixel_values"].shape == (1, 3, side, side)  # not resized, not padded
    assert bool(theirs["pixel_mask"].all())
    seen: list[torch.Tensor] = []
    ours = predictor(folder, side)
    ours.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    list(ours.predict([TileInput(image, np.ones((side, side), bool))], 255.0))
    torch.testing.assert_close(seen[0], theirs["pixel_values"], rtol=0, atol=2e-6)


# Hugging Face resizes masks to 384 x 384 on the way, whatever the image's size.
@pytest.mark.parametrize("side", [384, 192, 720])
def test_post_processing_gives_the_labels_of_one_tile(
    tmp_path: Path, side: int
) -> None:
    folder = tiny_models.save_segmenter(tmp_path, tile_size=side)
    image = colored_blocks(side)
    processor = AutoImageProcessor.from_pretrained(folder)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = model(**processor(image.transpose(1, 2, 0), return_tensors="pt"))
    (theirs,) = processor.post_process_semantic_segmentation(
        output, target_sizes=[(side, side)]
    )
    tile = TileInput(image, np.ones((side, side), bool))
    (logits,) = predictor(folder, side).predict([tile], 255.0)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(logits).float()[None], size=(side, side), mode="bilinear"
    )[0]
    # Both interpolate between cells, geoseg logits and Hugging Face masks: next to a
    # change of label they may differ, elsewhere they must not.
    cells = torch.from_numpy(logits).float().argmax(0).float()[None, None]
    pool = torch.nn.functional.max_pool2d
    settled = pool(cells, 3, 1, 1) == -pool(-cells, 3, 1, 1)
    settled = settled[0, 0].repeat_interleave(4, 0).repeat_interleave(4, 1)
    ours = resized.argmax(0)
    shares = torch.bincount(ours.flatten(), minlength=4) / ours.numel()
    assert int((shares > 0.005).sum()) >= 3  # or agreement would mean little
    assert float(shares.max()) < 0.8
    assert float(settled.float().mean()) > 0.25
    assert float((ours == theirs)[settled].float().mean()) > 0.999
    assert float((ours == theirs).float().mean()) > 0.95
