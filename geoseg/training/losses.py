"""Losses of a Mask2Former that is trained on dense class labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.data.labelled import IGNORE
from geoseg.models.segmenter import query_logits
from geoseg.training.config import LossConfig


def mask_targets(labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """One binary mask per class that is present, as Mask2Former wants its targets.

    Args:
        labels: (B, H, W) class indices, `IGNORE` where unlabelled.

    Returns:
        Per image the masks (N, H, W), float32, and their classes (N,), int64.
    """
    masks, classes = [], []
    for image in labels:
        present = image.unique()
        present = present[present != IGNORE]
        masks.append((image[None] == present[:, None, None]).float())
        classes.append(present)
    return masks, classes


class DenseMask2FormerLoss(nn.Module):
    """Mask2Former's own loss plus per-pixel terms that make it converge in hours.

    Few queries answer for few classes here, and the set loss alone learns slowly from
    random weights. Added are the negative log likelihood of the class probabilities
    that inference uses (contract C2), for the last decoder layer, and a linear
    classifier on the pixel decoder's features that exists only during training.

    The set loss is Hugging Face's code, called once an image: its sampling points then
    depend on that image's seed and on nothing else. What it divides by (masks, weights
    of the queries) is put right afterwards to that of all images of a step, so that the
    sum over any parts of a step is what one call with all of its images would give.

    Args:
        model: The model that will be trained; its configuration is read.
        weights: Weights of the terms.
    """

    def __init__(
        self, model: Mask2FormerForUniversalSegmentation, weights: LossConfig
    ) -> None:
        super().__init__()
        config: Any = model.config  # whose fields may be None, all but in a model
        self.weights = weights
        self.num_queries: int = config.num_queries
        self.no_object_weight: float = config.no_object_weight
        self.classifier = nn.Conv2d(
            config.mask_feature_size, config.num_labels, kernel_size=1
        )

    def count(self, labels: Tensor) -> Tensor:
        """Count what the terms of some images are divided by.

        Counts of several parts of a step add up.

        Args:
            labels: (B, H, W) class indices.

        Returns:
            Masks, weights of the queries, and labelled pixels: (3,), float64.
        """
        labelled = labels != IGNORE
        masks = weights = 0.0
        for image in labels:
            present = int((image.unique() != IGNORE).sum())
            matched = min(present, self.num_queries)
            masks += present
            weights += matched + (self.num_queries - matched) * self.no_object_weight
        pixels = float(labelled.sum())
        return torch.tensor(
            [masks, weights, pixels], dtype=torch.float64, device=labels.device
        )

    def forward(
        self,
        model: Mask2FormerForUniversalSegmentation,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        counts: Tensor,
    ) -> dict[str, Tensor]:
        """Run the model and compute the terms and their weighted sum, `total`.

        Args:
            model: The model, in train mode.
            images: Normalised, (B, K, H, W).
            labels: (B, H, W) class indices.
            seeds: Of the sampling points of each image.
            counts: `count` of the whole step, of which these images may be a part.
        """
        output = model(pixel_values=images, output_auxiliary_logits=True)
        with torch.autocast(images.device.type, enabled=False):
            terms = {
                "set": _set_loss(model, output, labels, seeds, counts, self),
                "pixel": _cross_entropy(
                    query_logits(
                        output.class_queries_logits, output.masks_queries_logits
                    ),
                    labels,
                    counts,
                ),
                "auxiliary": _cross_entropy(
                    self.classifier(output.pixel_decoder_last_hidden_state.float()),
                    labels,
                    counts,
                ),
            }
            total = (
                self.weights.set_weight * terms["set"]
                + self.weights.pixel_weight * terms["pixel"]
                + self.weights.auxiliary_weight * terms["auxiliary"]
            )
        return {"total": total, **terms}


def _set_loss(
    model: Mask2FormerForUniversalSegmentation,
    output: Any,  # noqa: ANN401 (a `Mask2FormerForUniversalSegmentationOutput`)
    labels: Tensor,
    seeds: Sequence[int],
    counts: Tensor,
    module: DenseMask2FormerLoss,
) -> Tensor:
    """Sum the images' shares of Mask2Former's loss over the whole step."""
    names = ("masks_queries_logits", "class_queries_logits")
    layers = [
        *(
            {name: layer[name].float() for name in names}
            for layer in output.auxiliary_logits
        ),
        {name: output[name].float() for name in names},
    ]
    hf: Any = model  # whose annotations of this method are not what it takes
    total = labels.new_zeros((), dtype=torch.float32)
    for index, seed in enumerate(seeds):
        part = slice(index, index + 1)
        masks, classes = mask_targets(labels[part])
        shares = _shares(module.count(labels[part]), counts)
        # What HF draws comes from torch's own generators.
        torch.manual_seed(seed)
        terms = hf.get_loss_dict(
            **{name: layers[-1][name][part] for name in names},
            mask_labels=masks,
            class_labels=classes,
            auxiliary_predictions=[
                {name: layer[name][part] for name in names} for layer in layers[:-1]
            ],
        )
        for name, term in terms.items():
            total = total + term * shares["cross_entropy" in name]
    return total


def _shares(own: Tensor, whole: Tensor) -> dict[bool, Tensor]:
    """An image's part in the divisors of a step, for mask terms and class terms."""
    masks, weights, _ = (own / whole.clamp_min(1e-12)).float()
    return {False: masks, True: weights}


def _cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Cross entropy at full resolution; zero where there is no label at all."""
    logits = F.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return loss / counts[2].float().clamp_min(1)
