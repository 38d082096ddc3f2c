"""The predictor: scaling, nodata, padding, batches, precision, and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import stubs
import tiny_models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import ModelError
from geoseg.inference import (
    Predictor,
    PredictorConfig,
    TileInput,
    choose_device,
    default_batch_size,
)
from geoseg.models import load_model, read_spec

SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_segmenter(tmp_path_factory.mktemp("model"), tile_size=SIDE)


@pytest.fixture(scope="module")
def pointwise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stubs.save_stub(
        tmp_path_factory.mktemp("stub"),
        tile_size=SIDE,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.5),
    )


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(folder: Path, **changes: Any) -> PredictorConfig:  # noqa: ANN401
    digest = read_spec(folder).weights_sha256
    plain = PredictorConfig(str(folder), digest, SIDE)
    return dataclasses.replace(plain, **changes)


def load(folder: Path, **changes: Any) -> Predictor:  # noqa: ANN401
    return Predictor.load(config(folder, **changes))


def tile(
    height: int = SIDE,
    width: int = SIDE,
    *,
    seed: int = 0,
    dtype: npt.DTypeLike = np.uint8,
) -> TileInput:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (3, height, width)).astype(dtype)
    return TileInput(values, np.ones((height, width), bool))


def predict(predictor: Predictor, *tiles: TileInput) -> list[npt.NDArray[np.float16]]:
    return list(predictor.predict(tiles, 255.0))


def seen(predictor: Predictor, *tiles: TileInput) -> torch.Tensor:
    """Predict; return the first batch that the model saw."""
    batches: list[torch.Tensor] = []
    hook = predictor.model.register_forward_pre_hook(
        lambda _, __, named: batches.append(named["pixel_values"]), with_kwargs=True
    )
    predict(predictor, *tiles)
    hook.remove()
    return batches[0]


# Numbers


def test_logits_are_the_models_for_scaled_and_normalised_pixels(
    pointwise: Path,
) -> None:
    predictor = load(pointwise)
    one = tile()
    (logits,) = predict(predictor, one)
    assert logits.dtype == np.float16
    mean = np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1)
    std = np.array([0.2, 0.25, 0.5]).reshape(3, 1, 1)
    model: Any = load_model(pointwise)
    pixels = (one.values.astype(np.float64) / 255 - mean) / std
    expected = np.einsum("kc,chw->khw", model.weight.numpy(), pixels)
    expected += model.bias.numpy().reshape(-1, 1, 1)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_scale_is_what_means_one(pointwise: Path) -> None:
    predictor = load(pointwise)
    eight = tile()
    sixteen = TileInput(eight.values.astype(np.uint16) * 40, eight.valid)
    (wanted,) = predictor.predict([eight], 255.0)
    (found,) = predictor.predict([sixteen], 255.0 * 40)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64],
)
def test_every_dtype_is_read_as_its_numbers(
    pointwise: Path, dtype: npt.DTypeLike
) -> None:
    predictor = load(pointwise)
    low = tile()
    values = (low.values // 2).astype(dtype)
    batch = seen(predictor, TileInput(values, low.valid))
    mean = np.array([0.4, 0.5, 0.6]).reshape(3, 1, 1)
    std = np.array([0.2, 0.25, 0.5]).reshape(3, 1, 1)
    expected = (values.astype(np.float64) / 255 - mean) / std
    np.testing.assert_allclose(batch[0].numpy(), expected, rtol=0, atol=2e-6)


def test_query_models_give_log_probabilities_at_stride_four(folder: Path) -> None:
    (logits,) = predict(load(folder), tile())
    assert logits.shape == (4, SIDE // 4, SIDE // 4)
    sums = np.exp(logits.astype(np.float64)).sum(0)
    np.testing.assert_allclose(sums, 1.0, atol=5e-3)


def test_logits_that_are_not_finite_become_nan(pointwise: Path) -> None:
    predictor = load(pointwise)
    model: Any = predictor.model
    one = TileInput(np.full((3, SIDE, SIDE), 255, np.uint8), tile().valid)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([torch.inf, -torch.inf, torch.nan, 1e9]))
    (logits,) = predict(predictor, one)
    assert np.isnan(logits[:3]).all()
    # Large but finite: clipped to what float16 holds, never infinite.
    assert (logits[3] == np.float16(60000)).all()


# Nodata (C4)


@pytest.mark.parametrize("hidden", [0.0, 255.0, 1e30, np.nan, np.inf])
def test_hidden_values_never_matter(folder: Path, hidden: float) -> None:
    predictor = load(folder)
    rng = np.random.default_rng(1)
    valid = rng.random((SIDE, SIDE)) > 0.4
    base = tile(dtype=np.float32)
    changed = np.where(valid, base.values, np.float32(hidden))
    (wanted,) = predict(predictor, TileInput(base.values, valid))
    (found,) = predict(predictor, TileInput(changed, valid))
    np.testing.assert_array_equal(found, wanted)
    assert np.isfinite(found).all()


def test_hidden_pixels_are_filled_with_the_mean(pointwise: Path) -> None:
    predictor = load(pointwise)
    valid = np.ones((SIDE, SIDE), bool)
    valid[10:20, 30:40] = False
    batch = seen(predictor, TileInput(tile().values, valid))
    assert float(batch[0, :, 10:20, 30:40].abs().max()) < 1e-6
    assert float(batch[0, :, :10].abs().max()) > 0.5


# Padding


@settings(max_examples=25)
@given(height=st.integers(1, SIDE), width=st.integers(1, SIDE))
def test_small_tiles_are_padded_by_reflection(
    pointwise: Path, height: int, width: int
) -> None:
    batch = seen(load(pointwise), tile(height, width))
    rows, cols = (reflected(length) for length in (height, width))
    inner = batch[0, :, :height, :width]
    assert torch.equal(batch[0], inner[:, rows][:, :, cols])


def reflected(length: int) -> list[int]:
    """Return which of `length` cells each of SIDE cells repeats."""
    period = max(2 * (length - 1), 1)
    places = [index % period for index in range(SIDE)]
    return [min(place, period - place) if length > 1 else 0 for place in places]


def test_padding_follows_the_filling_of_hidden_pixels(pointwise: Path) -> None:
    small = tile(8, 8, dtype=np.float32)
    small.values[:, -1] = np.nan
    small.valid[-1] = False
    assert np.isfinite(predict(load(pointwise), small)[0]).all()


# Batches


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_change_nothing_but_rounding(folder: Path, batch_size: int) -> None:
    tiles = [tile(seed=seed) for seed in range(4)]  # the last batch is not full
    single = predict(load(folder), *tiles)
    batched = predict(load(folder, batch_size=batch_size), *tiles)
    assert len(single) == len(batched) == 4
    for one, other in zip(single, batched, strict=True):
        # float16 holds what float32 arithmetic gave within 1e-5.
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert not np.array_equal(single[0], single[3])


def test_batches_equal_single_tiles_in_float32(folder: Path) -> None:
    model: Any = load_model(folder)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=generator)
    with torch.inference_mode():
        batched = model(pixel_values=pixels).masks_queries_logits
        single = [model(pixel_values=one[None]).masks_queries_logits for one in pixels]
    bound = 1e-5 * float(batched.max() - batched.min())
    torch.testing.assert_close(batched, torch.cat(single), rtol=0, atol=bound)


def test_last_batch_is_filled_up_and_its_filling_dropped(folder: Path) -> None:
    predictor = load(folder, batch_size=3)
    assert len(seen(predictor, tile())) == 3
    whole = predict(predictor, tile(seed=0), tile(seed=1), tile(seed=2))
    short = predict(predictor, tile(seed=0))
    assert len(short) == 1
    np.testing.assert_array_equal(short[0], whole[0])


def test_a_short_batch_gives_each_tile_its_own_logits(pointwise: Path) -> None:
    tiles = [tile(seed=seed) for seed in range(5)]
    single = predict(load(pointwise), *tiles)
    batched = predict(load(pointwise, batch_size=3), *tiles)
    assert len(batched) == 5
    for one, other in zip(single, batched, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-2)
    assert not np.allclose(single[3], single[4], atol=1e-2)


def test_tiles_are_taken_as_they_are_needed(pointwise: Path) -> None:
    taken: list[int] = []

    def source() -> Iterator[TileInput]:
        for index in range(5):
            taken.append(index)
            yield tile(seed=index)

    results = load(pointwise, batch_size=2).predict(source(), 255.0)
    next(results)
    assert taken == [0, 1]
    assert len(list(results)) == 4


def test_running_ahead_changes_nothing_but_the_order_of_work(pointwise: Path) -> None:
    tiles = [tile(seed=seed) for seed in range(5)]
    wanted = predict(load(pointwise, batch_size=2), *tiles)
    predictor = load(pointwise, batch_size=2)
    assert predictor.ahead == 0  # On a CPU.
    predictor.ahead = 1
    taken: list[int] = []

    def source() -> Iterator[TileInput]:
        for index, one in enumerate(tiles):
            taken.append(index)
            yield one

    results = predictor.predict(source(), 255.0)
    found = [next(results)]
    assert taken == [0, 1, 2, 3]
    found += results
    np.testing.assert_array_equal(found, wanted)


def flipped(one: TileInput, axes: tuple[int, ...]) -> TileInput:
    """Flip a tile along rows (0) and columns (1)."""
    values = np.flip(one.values, tuple(axis + 1 for axis in axes))
    return TileInput(values.copy(), np.flip(one.valid, axes).copy())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_flips_are_averaged_in_the_tile_s_own_place(
    folder: Path, batch_size: int
) -> None:
    tiles = [tile(seed=seed) for seed in range(4)]
    found = predict(load(folder, tta=True, batch_size=batch_size), *tiles)
    plain = load(folder, batch_size=batch_size)
    for index, one in enumerate(tiles):
        passes = [
            np.flip(predict(plain, flipped(one, axes))[0], tuple(a + 1 for a in axes))
            for axes in ((), (0,), (1,), (0, 1))
        ]
        assert np.abs(passes[0] - passes[3]).max() > 0.1, "flips must matter"
        expected = np.mean(np.array(passes, np.float32), axis=0)
        np.testing.assert_allclose(found[index], expected, rtol=2e-3, atol=2e-3)


def test_flips_change_nothing_for_a_pointwise_model(pointwise: Path) -> None:
    (plain,), (averaged,) = (
        predict(load(pointwise, tta=tta), tile()) for tta in (False, True)
    )
    np.testing.assert_allclose(averaged, plain, rtol=2e-3, atol=1e-3)


def test_one_flip_that_is_not_finite_is_told(pointwise: Path) -> None:
    predictor = load(pointwise, tta=True)
    model: Any = predictor.model
    with torch.no_grad():
        model.weight[0, 0] = torch.inf
    (logits,) = predict(predictor, tile())
    assert np.isnan(logits[0]).any()
    assert not np.isinf(logits).any()


def test_no_tiles_make_no_model_call(pointwise: Path) -> None:
    predictor = load(pointwise)
    predictor.model.register_forward_pre_hook(lambda *_: pytest.fail("a call"))
    assert predict(predictor) == []


# Precision, compilation


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_stays_near_float32(folder: Path, dtype: str) -> None:
    (wanted,) = predict(load(folder), tile())
    (found,) = predict(load(folder, dtype=dtype), tile())
    assert np.isfinite(found).all()
    gap = np.abs(found.astype(np.float32) - wanted.astype(np.float32))
    assert float(gap.max()) > 0
    assert float(np.median(gap)) < 0.1


def test_auto_is_float32_on_a_cpu(folder: Path) -> None:
    assert load(folder).dtype == torch.float32


@pytest.mark.needs_cuda
def test_cuda_agrees_with_cpu(folder: Path) -> None:
    (wanted,) = predict(load(folder), tile())
    (exact,) = predict(load(folder, device="cuda", dtype="float32"), tile())
    np.testing.assert_allclose(exact, wanted, rtol=1e-2, atol=1e-2)
    predictor = load(folder, device="cuda")
    assert predictor.dtype == torch.bfloat16
    (found,) = predict(predictor, tile())
    assert float(np.median(np.abs(found - wanted))) < 0.1


# Loading


def test_threads_are_those_of_the_configuration(folder: Path) -> None:
    load(folder, torch_threads=2)
    assert torch.get_num_threads() == 2


def test_other_weights_than_expected_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"other weights .*\(0123456789ab\); copy"):
        load(folder, sha256="0123456789ab" * 5)


def test_folders_that_the_worker_does_not_see_are_refused(folder: Path) -> None:
    wrong = dataclasses.replace(config(folder), folder=str(folder / "elsewhere"))
    with pytest.raises(ModelError, match="is not on this worker; put the model on"):
        Predictor.load(wrong)


def test_imports_that_fail_are_told(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.imports: no_such_module cannot"):
        load(folder, imports=("no_such_module",))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda")
    with pytest.raises(ModelError, match="'tpu9' is not one; use auto, cpu or cuda"):
        choose_device("tpu9")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no GPU; use --device cpu"):
            choose_device("cuda:1")
        # Workers elsewhere may have what this machine lacks.
        assert choose_device("cuda:1", here=False) == "cuda:1"
    assert default_batch_size("cuda:1") > default_batch_size("cpu") == 1
