"""Classes of a model and of labels are paired by name, or as the user says."""

from __future__ import annotations

import pytest

from geoseg.errors import UsageError
from geoseg.evaluation.counts import IGNORE, UNCOUNTED
from geoseg.evaluation.matching import FOREIGN, pair_classes, per_model
from geoseg.types import ClassInfo


def classes(**ids: int) -> list[ClassInfo]:
    return [ClassInfo(number, name, (number, 0, 0)) for name, number in ids.items()]


LABELS = classes(water=9, road=3, Building=5)
MODEL = classes(building=1, cloud=2, water=7)


def test_names_pair_whatever_their_case_and_ids() -> None:
    pairs = pair_classes(LABELS, MODEL)
    assert [info.name for info in pairs.columns] == [
        "water",
        "road",
        "Building",
        "cloud",
    ]
    assert pairs.size == (3, 4)
    assert pairs.missing == ("road",)
    assert pairs.of_mask[[7, 1, 2, 255, 0]].tolist() == [0, 2, 3, IGNORE, FOREIGN]
    assert pairs.of_labels[[0, 1, 2, 3, 255]].tolist() == [0, 1, 2, IGNORE, IGNORE]


def test_a_mapping_wins_over_names() -> None:
    pairs = pair_classes(LABELS, MODEL, {"Cloud": "road", "water": "ignore"})
    assert pairs.of_mask[[1, 2, 7]].tolist() == [2, 1, UNCOUNTED]
    assert pairs.others == ()
    assert pairs.missing == ("water",)


def test_labels_that_are_left_out_are_no_rows() -> None:
    pairs = pair_classes(LABELS, MODEL, leave_out=["Road"])
    assert [info.name for info in pairs.labels] == ["water", "Building"]
    assert pairs.of_labels[:3].tolist() == [0, IGNORE, 1]
    assert pairs.of_mask[[7, 1, 2]].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "mapping", "leave_out", "message"),
    [
        (classes(tree=1), {}, [], "--map 'tree=water'"),
        (classes(tree=1, sky=2), {"sky": "ignore"}, [], "no name in common"),
        (MODEL, {"roof": "road"}, [], "'roof' is no class of the model"),
        (MODEL, {"cloud": "sea"}, [], "'sea' is no class of the labels"),
        (MODEL, {}, ["sea"], "'sea' is no class of the labels"),
        (MODEL, {"cloud": "road"}, ["road"], "'road' is no class of the labels that"),
    ],
)
def test_what_pairs_nothing_is_refused(
    model: list[ClassInfo],
    mapping: dict[str, str],
    leave_out: list[str],
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        pair_classes(LABELS, model, mapping, leave_out)


def test_a_mapping_for_several_models_is_for_those_that_have_the_class() -> None:
    other = classes(roof=1, water=2)
    parts = per_model({"cloud": "road", "Roof": "building"}, [MODEL, other])
    assert parts == [{"cloud": "road"}, {"Roof": "building"}]
    with pytest.raises(UsageError, match="'sea' is no class of the model"):
        per_model({"sea": "water"}, [MODEL, other])
