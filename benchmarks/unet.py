"""A plain U-Net as a Hugging Face model, which `geoseg segment` runs like any other.

The network is segmentation_models_pytorch's U-Net on a ResNet-18. Workers import this
module through `model.imports: [unet]`, with `benchmarks/` on `PYTHONPATH`.
"""

from __future__ import annotations

import torch.nn.functional as F
from segmentation_models_pytorch import Unet
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SemanticSegmenterOutput

STRIDE = 32
"""Pixels that the input of a ResNet's five halvings is a multiple of."""


class UNetConfig(PreTrainedConfig):
    """Configuration of `UNet`."""

    model_type = "geoseg_benchmark_unet"

    num_classes: int = 5
    patch_size: int = 16
    """Not the network's, which has none: tile sizes and strides are as of ViTs."""


class UNet(PreTrainedModel):
    """The network; an input that it cannot halve is filled up by reflection."""

    config: UNetConfig
    config_class = UNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.network = Unet(
            "resnet18", encoder_weights=None, classes=config.num_classes
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Leave the weights as the library drew them."""

    def forward(self, pixel_values: Tensor, **_: object) -> SemanticSegmenterOutput:
        """Compute logits (B, K, H, W) of normalised pixels (B, 3, H, W)."""
        height, width = pixel_values.shape[-2:]
        below, right = -height % STRIDE, -width % STRIDE
        top, left = below // 2, right // 2
        padded = F.pad(
            pixel_values, (left, right - left, top, below - top), mode="reflect"
        )
        logits = self.network(padded)
        return SemanticSegmenterOutput(
            logits=logits[..., top : top + height, left : left + width]
        )


AutoConfig.register(UNetConfig.model_type, UNetConfig)
AutoModelForSemanticSegmentation.register(UNetConfig, UNet)
