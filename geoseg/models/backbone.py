"""A frozen ViT with a ViT-Adapter, as a Hugging Face backbone of four levels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Self, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from geoseg.models.adapter import (
    Injector,
    InteractionBlock,
    MSDeformAttn,
    Shapes,
    SpatialPriorModule,
)
from geoseg.models.configuration import ViTAdapterConfig
from geoseg.models.encoders import build_vit, view
from geoseg.tiling import check_tile_size


class ViTAdapterBackbone(BackboneMixin, PreTrainedModel):
    """ViT + ViT-Adapter: an image in, four maps at strides 4, 8, 16 and 32 out."""

    config: ViTAdapterConfig
    config_class = ViTAdapterConfig
    main_input_name = "pixel_values"
    base_model_prefix = "vit_adapter"
    _no_split_modules = ["DINOv3ViTLayer", "ViTLayer", "Dinov2Layer"]  # noqa: RUF012

    def __init__(self, config: ViTAdapterConfig) -> None:
        super().__init__(config)
        model = build_vit(config.backbone_config)
        vit = view(model)
        dim, depth = vit.width, len(vit.blocks)
        indexes = list(config.interaction_indexes)
        rising = sorted(set(indexes)) == indexes
        if len(indexes) != 4 or not rising or indexes[0] < 0 or indexes[3] >= depth:
            raise ValueError(
                f"interaction_indexes {indexes} must be four that rise within "
                f"0..{depth - 1}: they are zero-based block indices"
            )
        self.patch_size = vit.patch
        self.num_features = [dim] * 4
        self.backbone: Any = model
        self.spm = SpatialPriorModule(vit.channels, config.conv_inplane, dim)
        self.level_embed = nn.Parameter(torch.zeros(3, dim))
        self.interactions = nn.ModuleList(
            InteractionBlock(
                dim,
                config.deform_num_heads,
                config.n_points,
                config.deform_ratio,
                config.cffn_ratio,
                use_injector=config.use_injector,
                extra_extractors=config.extra_extractors if block == 3 else 0,
            )
            for block in range(4)
        )
        self.up = nn.ConvTranspose2d(dim, dim, kernel_size=2, stride=2)
        self.norm1 = nn.BatchNorm2d(dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.norm3 = nn.BatchNorm2d(dim)
        self.norm4 = nn.BatchNorm2d(dim)
        self.post_init()  # type: ignore[no-untyped-call]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen ViT stays in eval mode (its RoPE jitters in train)."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.backbone.eval()
            # Here too: `from_pretrained` makes new parameters, then sets the mode.
            self.backbone.requires_grad_(False)
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=0.02)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, nn.BatchNorm2d):
                for name, buffer in module.named_buffers():
                    (init.ones_ if name == "running_var" else init.zeros_)(buffer)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1]
            fan_out = fan_out * module.out_channels // module.groups
            init.normal_(module.weight, mean=0.0, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Injector):
            init.zeros_(module.gamma)
        elif module is self:
            init.normal_(self.level_embed)
            # From here, after their layers: transformers passes over modules without
            # parameters of their own in models that are not its own.
            for attention in filter(_is_attention, self.modules()):
                _init_attention(attention)

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, **_: object
    ) -> BackboneOutput:
        """Compute the four levels.

        Args:
            pixel_values: Normalised image, (B, K, H, W), multiples of the patch size.

        Returns:
            `BackboneOutput` whose `feature_maps` are (B, D, ceil(H / s), ceil(W / s))
            for s = 4, 8, 16, 32.

        Raises:
            TilingError: H or W is not a multiple of the patch size.
        """
        patch_shape = _patch_shape(pixel_values, self.patch_size)
        c1, *levels = self.spm(pixel_values)
        shapes: Shapes = [(int(c.shape[2]), int(c.shape[3])) for c in levels]
        spatial = torch.cat(
            [
                level.flatten(2).transpose(1, 2) + embed
                for level, embed in zip(levels, self.level_embed, strict=True)
            ],
            dim=1,
        )
        spatial, taps = self._interact(pixel_values, spatial, patch_shape, shapes)
        maps = self._to_maps(c1, spatial, shapes)
        if self.config.add_vit_feature:
            maps = [
                level
                + F.interpolate(
                    tap, size=level.shape[2:], mode="bilinear", align_corners=False
                )
                for level, tap in zip(maps, taps, strict=True)
            ]
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        maps = [norm(level) for norm, level in zip(norms, maps, strict=True)]
        wanted = [self.stage_names.index(name) for name in self.out_features]
        feature_maps: Any = tuple(maps[level] for level in wanted)
        return BackboneOutput(feature_maps=feature_maps)

    def _interact(
        self,
        pixel_values: Tensor,
        spatial: Tensor,
        patch_shape: tuple[int, int],
        shapes: Shapes,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the ViT's block groups and the interactions; return tokens and taps."""
        config, vit = self.config, view(self.backbone)
        # Frozen and not injected into: no gradient can be wanted inside the ViT.
        frozen = config.freeze_backbone and not config.use_injector
        prefix = vit.num_prefix_tokens
        with torch.no_grad() if frozen else nullcontext():
            hidden, arguments = vit.begin(pixel_values)
        taps, start = [], 0
        blocks = cast(Iterable[InteractionBlock], self.interactions)
        for block, index in zip(blocks, config.interaction_indexes, strict=True):
            if config.use_injector:
                patches = block.injector(
                    hidden[:, prefix:], patch_shape, spatial, shapes
                )
                hidden = torch.cat([hidden[:, :prefix], patches], dim=1)
            with torch.no_grad() if frozen else nullcontext():
                for layer in vit.blocks[start : index + 1]:
                    hidden = layer(hidden, **arguments)
                tap = vit.final_norm(hidden) if config.feature_norm else hidden
            patches = tap[:, prefix:]
            spatial = block.extract(spatial, shapes, patches, patch_shape)
            taps.append(patches.transpose(1, 2).unflatten(2, patch_shape))
            start = index + 1
        return spatial, taps

    def _to_maps(self, c1: Tensor, spatial: Tensor, shapes: Shapes) -> list[Tensor]:
        """Split the tokens into levels and raise the finest one to stride 4."""
        areas = [height * width for height, width in shapes]
        levels = [
            tokens.transpose(1, 2).unflatten(2, shape)
            for tokens, shape in zip(spatial.split(areas, dim=1), shapes, strict=True)
        ]
        # Doubled, a level whose side was rounded up is a cell too large. With patches
        # of 16 only stride 32 is rounded up, with patches of 14 this one is as well.
        raised = self.up(levels[0])[..., : c1.shape[2], : c1.shape[3]]
        return [raised + c1, *levels]


def _is_attention(module: nn.Module) -> TypeGuard[MSDeformAttn]:
    return isinstance(module, MSDeformAttn)


def _init_attention(module: MSDeformAttn) -> None:
    init.zeros_(module.sampling_offsets.weight)
    init.copy_(module.sampling_offsets.bias, module.initial_offsets())
    init.zeros_(module.attention_weights.weight)
    init.zeros_(module.attention_weights.bias)
    for projection in (module.value_proj, module.output_proj):
        init.xavier_uniform_(projection.weight)
        init.zeros_(projection.bias)


def _patch_shape(pixel_values: Tensor, patch: int) -> tuple[int, int]:
    height, width = int(pixel_values.shape[2]), int(pixel_values.shape[3])
    check_tile_size(height, patch)
    check_tile_size(width, patch)
    return height // patch, width // patch


AutoConfig.register(ViTAdapterConfig.model_type, ViTAdapterConfig)
AutoBackbone.register(ViTAdapterConfig, ViTAdapterBackbone)
