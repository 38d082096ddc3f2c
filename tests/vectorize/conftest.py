from __future__ import annotations

from collections.abc import Iterator

import pytest

from geoseg.vectorize import banding, joining, native, tracing


@pytest.fixture(scope="module", params=["native", "numpy"], autouse=True)
def tracer(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run each test with the native tracer, then with the one in NumPy."""
    kind: str = request.param
    if kind == "native" and native.library() is None:
        pytest.skip("native operators are absent")
    with pytest.MonkeyPatch.context() as patch:
        if kind == "numpy":
            for module in (tracing, joining, banding):
                patch.setattr(module, "library", lambda: None)
        yield kind
