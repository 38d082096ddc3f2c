"""Settings to compare: every combination, named, each with a folder of its own."""

from __future__ import annotations

import pytest

from geoseg.errors import ConfigError
from geoseg.pipelines.evaluate_variants import Sections, make_variants
from geoseg.pipelines.segment import TilingConfig


def test_every_combination_is_made() -> None:
    made = make_variants(Sections(), ["tiling.overlap=0,96", "model.tta=false,true"])
    assert [(v.sections.tiling.overlap, v.sections.model.tta) for v in made] == [
        (0, False),
        (0, True),
        (96, False),
        (96, True),
    ]
    assert made[1].name == "tiling.overlap=0, model.tta=true"
    assert len({variant.folder for variant in made}) == 4


def test_overlap_and_stride_are_two_words_for_one_thing() -> None:
    base = Sections(tiling=TilingConfig(stride=48, window="none"))
    [variant] = make_variants(base, ["tiling.overlap=16"])
    assert variant.sections.tiling == TilingConfig(overlap=16, window="none")


def test_without_settings_the_model_is_the_name() -> None:
    [variant] = make_variants(Sections(), [])
    assert (variant.name, variant.folder) == ("builtin", "run")


def test_folders_are_safe_and_tell_settings_apart() -> None:
    made = make_variants(Sections(), ["model.path=../a b,'../a,b',org/name"])
    assert [variant.sections.model.path for variant in made] == [
        *("../a b", "../a,b", "org/name")
    ]
    folders = [variant.folder for variant in made]
    assert len(set(folders)) == 3
    assert not any("/" in folder for folder in folders)


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (["output.compress=zstd,deflate"], "cannot vary output.compress"),
        (["tiling.overlaps=1,2"], "tiling.overlap"),
        (["tiling.overlap"], "sets nothing"),
        (["tiling.overlap=1", "tiling.overlap=2"], "names a key twice"),
        (["tiling.overlap=1,1"], "value of tiling.overlap twice"),
        (["tiling.window=hann,square"], "hann or linear or none"),
        (["tiling.overlap=[1,"], "cannot read|viable"),
    ],
)
def test_what_cannot_be_compared_is_refused(compare: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_variants(Sections(), compare)
    assert "\n" not in str(caught.value)
