"""Draw the loss of a training run from its log.

python benchmarks/plot_training.py runs/train-builtin/log.csv training.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

TERMS = {
    "set": "Mask2Former's set loss",
    "pixel": "negative log likelihood of the class probabilities",
    "auxiliary": "auxiliary per-pixel classifier",
}
SPAN = 15
"""Lines of the log that one point of the curve averages over."""


def main() -> None:
    """Read the log, draw one panel a term."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("png", type=Path)
    arguments = parser.parse_args()
    with arguments.log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = np.array([int(row["step"]) for row in rows])
    figure, axes = plt.subplots(1, len(TERMS), figsize=(10.5, 2.6), dpi=110)
    for axis, (term, title) in zip(axes, TERMS.items(), strict=True):
        values = np.array([float(row[term]) for row in rows])
        axis.plot(steps, values, color="0.8", linewidth=0.8)
        smooth = np.convolve(values, np.ones(SPAN) / SPAN, "valid")
        axis.plot(steps[SPAN - 1 :], smooth, color="tab:blue")
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("step", fontsize=8)
        axis.set_yscale("log")
        axis.tick_params(labelsize=7, which="both")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(arguments.png)


if __name__ == "__main__":
    main()
