"""Losses of a Mask2Former that is trained on dense class labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.data.labelled import IGNORE
from geoseg.models.segmenter import query_logits


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

    Args:
        channels: Channels of the pixel decoder's last map.
        num_classes: Classes, K.
        pixel_weight: Weight of the negative log likelihood.
        auxiliary_weight: Weight of the auxiliary classifier.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        pixel_weight: float,
        auxiliary_weight: float,
    ) -> None:
        super().__init__()
        self.pixel_weight = pixel_weight
        self.auxiliary_weight = auxiliary_weight
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)

    def forward(
        self, model: Mask2FormerForUniversalSegmentation, images: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Run the model and compute the weighted terms and their sum, `total`.

        Args:
            model: The model, in train mode.
            images: Normalised, (B, 3, H, W).
            labels: (B, H, W) class indices.
        """
        masks, classes = mask_targets(labels)
        output = model(pixel_values=images, mask_labels=masks, class_labels=classes)
        layers = model.config.decoder_layers
        set_loss = output.loss.squeeze() / layers
        logits = query_logits(output.class_queries_logits, output.masks_queries_logits)
        pixel = _cross_entropy(logits, labels)
        auxiliary = _cross_entropy(
            self.classifier(output.pixel_decoder_last_hidden_state), labels
        )
        total = set_loss + self.pixel_weight * pixel + self.auxiliary_weight * auxiliary
        return {"total": total, "set": set_loss, "pixel": pixel, "auxiliary": auxiliary}


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy at full resolution; zero where a batch has no label at all."""
    logits = F.interpolate(
        logits, size=labels.shape[-2:], mode="bilinear", align_corners=False
    )
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return loss / torch.clamp((labels != IGNORE).sum(), min=1)
