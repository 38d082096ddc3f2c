"""Class tables: whatever a file holds, it is read or refused in one line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geoseg.errors import ConfigError
from geoseg.io.class_table import read_class_table

PLAIN = "id name color into classes drop 1 2.0 -3 1_0 nan null 2020-13-45 #4a90d2 <<"
WORDS = st.sampled_from(
    [
        *PLAIN.split(),
        *("!!int a", "!!timestamp b", "&a", "*a", "%YAML 9.9\n---", "? ", "|", ">9"),
        *("\x00", "\x01", "\ud83c", "\uffff", "\ufeff", "\u0661", "9" * 5000),
        *('"\\UFFFFFFFF"', r'"\ud83c\udf33"'),
    ]
)
MARKS = st.sampled_from(
    [",", ";", "\t", "\n", "\r", '"', "'", ": ", "- ", "[", "{", "}"]
)
PLAUSIBLE = st.lists(WORDS | MARKS | st.text(max_size=3), max_size=30).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "name", "color", "into", "classes"]), inner
        )
    ),
).map(json.dumps)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)
ROW = PAIRS.map(lambda pairs: ", ".join(f"{key}: {value}" for key, value in pairs))
# As YAML has it, also where the file is called JSON.
ROWS = st.lists(ROW.map("- {{id: 1, {}}}\n".format), min_size=1).map("".join)
OBJECTS = PAIRS.map(
    lambda pairs: "[{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}]"
)
CONTENT = st.binary(max_size=60) | (
    PLAUSIBLE | JSON | ROWS | OBJECTS | st.text(max_size=60)
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("suffix", [".csv", ".yaml", ".json"])
def test_any_content_is_read_or_refused(
    suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"t{suffix}"

    @given(CONTENT)
    @example(b'id,"name')
    def read(content: bytes) -> None:
        path.write_bytes(content)
        with contextlib.suppress(ConfigError):
            assert read_class_table(Path(path))

    read()
