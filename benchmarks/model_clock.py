"""Logs when a worker's model runs; imported there through `model.imports`.

Each batch appends a line "begin end", seconds of the clock, to a file of its process in
the folder that GEOSEG_MODEL_CLOCK names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from geoseg.inference import Predictor

_launch = Predictor._launch


def _timed(self: Predictor, *args: Any) -> Any:  # noqa: ANN401 (as the method has it)
    begin = time.time()
    try:
        return _launch(self, *args)
    finally:
        line = f"{begin:.6f} {time.time():.6f}\n"
        folder = Path(os.environ["GEOSEG_MODEL_CLOCK"])
        with (folder / f"{os.getpid()}.log").open("a") as stream:
            stream.write(line)


Predictor._launch = _timed  # type: ignore[method-assign]
