"""The class table: what values, colours and texts of labels mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geoseg.data.classes import (
    IGNORE,
    UNKNOWN,
    ClassConfig,
    ClassTable,
    Code,
    check_known,
    pack,
)
from geoseg.errors import ConfigError, SceneError

RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (90, 90, 90)


def entry(
    number: int, name: str, color: tuple[int, int, int] = RED, *mask: Code
) -> ClassConfig:
    return ClassConfig(number, name, color, mask)


def test_ids_stand_for_classes_unless_the_mask_says_otherwise() -> None:
    table = ClassTable((entry(3, "a"), entry(9, "b", GREEN, 1, 4)), (0,))
    coding = table.coding(colored=False)
    values = np.array([0, 1, 3, 4, 9])
    expected = [IGNORE, 1, 0, 1, UNKNOWN]
    assert coding.labels(values).tolist() == expected
    assert coding.labels(values.astype(np.uint8)).tolist() == expected
    assert coding.labels(values - 4000).tolist() == [UNKNOWN] * 5


def test_masks_may_use_the_ids_of_other_classes() -> None:
    # LoveDA's order shifted by one: 1 is b's, although a has the id 1.
    table = ClassTable((entry(1, "a", RED, 0), entry(2, "b", GREEN, 1)))
    assert table.coding(colored=False).labels(np.array([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("others", "ignore", "message"),
    [
        ((), (1,), r"^1 in labels means both data.ignore and a, .* by its id as"),
        (
            (),
            ("#ff0000",),
            r"both data.ignore and a, .* by its color as it has no mask",
        ),
        ((), ("a",), r"^'a' in labels means both data.ignore and a, .* by its name"),
        ((entry(2, "b", GREEN, 2, 1),), (), r"^1 in labels means both b and a, .* id"),
        ((entry(2, "b", GREEN, RED),), (), r"b and a, .*; give a a mask, or take"),
    ],
)
def test_what_stands_for_a_class_is_not_taken_silently(
    others: tuple[ClassConfig, ...], ignore: tuple[Code, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassTable((entry(1, "a"), *others), ignore)
    # With codes of its own, what it would be told by is free.
    ClassTable((entry(1, "a", RED, 77), *others), ignore)


def test_colors_are_written_as_text_or_numbers() -> None:
    table = ClassTable(
        (entry(1, "a"), entry(2, "b", GREY, "#00ff00", (0, 0, 9))), ("#FFFFFF",)
    )
    assert table.declared_kind() == "colors"
    pixels = np.array([pack(RED), pack(GREEN), 9, 0xFFFFFF, pack(GREY)])
    found = table.coding(colored=True).labels(pixels)
    assert found.tolist() == [0, 1, 1, IGNORE, UNKNOWN]


def test_what_the_table_does_not_name_is_counted_as_users_write_it() -> None:
    table = ClassTable((entry(1, "a"), entry(2, "b", GREEN)))
    packed = np.array([pack(GREY), 0, 0, 0x00FF00])
    unknown = np.array([True, True, True, False])
    counts = table.coding(colored=True).count(packed, unknown)
    assert counts == {"#5a5a5a": 1, "#000000": 2}
    with pytest.raises(
        SceneError,
        match=r"x: 3 pixels \(75.00%\) .*: #000000 \(50.00%\), #5a5a5a \(25.00%\); "
        r"name them in data.classes or data.ignore, or set data.unknown to ignore",
    ):
        check_known(counts, 4, "x")


@pytest.mark.parametrize(
    ("value", "index"),
    [
        *(("house", 0), (" 310 ", 0), (310, 0), (310.0, 0), ("a", UNKNOWN)),
        *(("b", 1), (2, 1), ("2", 1), ("none", IGNORE), (None, UNKNOWN), (1, UNKNOWN)),
    ],
)
def test_values_of_a_class_column(value: object, index: int) -> None:
    table = ClassTable((entry(1, "a", RED, "house", 310), entry(2, "b")), ("none",))
    assert table.of_attribute(value) == index


def test_ids_of_indices() -> None:
    ids = ClassTable((entry(4, "a"), entry(9, "b"))).ids
    assert ids[[0, 1, IGNORE]].tolist() == [4, 9, 255]


@pytest.mark.parametrize(
    ("classes", "ignore", "message"),
    [
        ((entry(1, "a"), entry(1, "b")), (), "the id 1 twice"),
        ((entry(1, "a"), entry(2, "a")), (), "the name a twice"),
        ((entry(255, "a"),), (), "id 255; class masks hold 0 to 254"),
        ((entry(1, "a", (0, 0, 256)),), (), "a has the color"),
        ((entry(1, "a", RED, 5), entry(2, "b", RED, 5)), (), "5 in labels means both"),
        ((entry(1, "a", RED, "#00ff00"),), (GREEN,), "means both data.ignore and a"),
    ],
)
def test_tables_with_two_meanings_are_refused(
    classes: Any,  # noqa: ANN401
    ignore: Any,  # noqa: ANN401
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassTable(classes, ignore)


def test_masks_hold_values_or_colours() -> None:
    table = ClassTable((entry(1, "a", RED, 5), entry(2, "b", RED, "#00ff00")))
    with pytest.raises(
        ConfigError, match=r"name colours \('#00ff00'\) and values \(5\)"
    ):
        table.declared_kind()
    with pytest.raises(ConfigError, match="b has no value in masks"):
        table.coding(colored=False)
    twins = ClassTable((entry(1, "a"), entry(2, "b")))
    with pytest.raises(ConfigError, match="b has the color of another class"):
        twins.coding(colored=True)
