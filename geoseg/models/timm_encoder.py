"""timm's ViTs for the adapter. Only models that ask for one import this module.

Position embeddings, where a model has them, are interpolated by timm: bicubically, with
antialiasing.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from geoseg.errors import ModelError
from geoseg.models.encoders import Encoder

try:
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
except ImportError as error:
    raise ModelError(
        "this model's encoder is timm's, which is not installed; pip install "
        "'geoseg[timm]'"
    ) from error

# After timm: transformers looks for it once, when it defines these.
from transformers.models.timm_wrapper import TimmWrapperConfig, TimmWrapperModel


class TimmEncoder(Encoder):
    """A view of a ViT of timm's, as transformers wraps it."""

    @property
    def width(self) -> int:
        """See `Encoder`."""
        return cast(int, self.model.timm_model.embed_dim)

    @property
    def patch(self) -> int:
        """See `Encoder`."""
        height, width = self.model.timm_model.patch_embed.patch_size
        return cast(int, height if height == width else (height, width))

    @property
    def channels(self) -> int:
        """See `Encoder`."""
        return cast(int, self.model.timm_model.patch_embed.proj.in_channels)

    @property
    def num_prefix_tokens(self) -> int:
        """See `Encoder`."""
        return cast(int, self.model.timm_model.num_prefix_tokens)

    @property
    def blocks(self) -> nn.ModuleList:
        """See `Encoder`."""
        return cast(nn.ModuleList, self.model.timm_model.blocks)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """See `Encoder`."""
        vit, arguments = self.model.timm_model, {}
        # Private, and in both classes what places the tokens before the first block.
        tokens = vit._pos_embed(vit.patch_embed(pixel_values))
        if isinstance(vit, Eva):
            tokens, arguments["rope"] = tokens
        return vit.norm_pre(tokens), arguments

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `Encoder`."""
        return cast(Tensor, self.model.timm_model.norm(tokens))


def build_timm(config: TimmWrapperConfig) -> TimmWrapperModel:
    """Build a ViT of timm's by its name (`vit_large_patch16_dinov3`), random weights.

    Args:
        config: `architecture`, and `model_args` for `timm.create_model`. It is told the
            patch size, for those who read the configuration alone.

    Raises:
        ValueError: There is no such architecture, or it is not one the adapter can run
            block by block at any size.
    """
    name = config.architecture
    if not timm.is_model(name):
        raise ValueError(
            f"timm {timm.__version__} has no architecture '{name}'; timm.list_models() "
            "names those it has"
        )
    try:
        model = TimmWrapperModel(config)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"timm cannot build {name} with model_args {config.model_args}: {error}"
        ) from error
    _check(model.timm_model, name)
    config.patch_size = TimmEncoder(model).patch
    return model


def _check(vit: nn.Module, name: str) -> None:
    mixed = getattr(vit, "rope_mixed", False)
    if not isinstance(vit, Eva | VisionTransformer) or mixed:
        raise ValueError(
            f"{name} is a {type(vit).__name__} of timm's; the adapter runs its ViTs: "
            "VisionTransformer, and Eva with one rotary embedding for all blocks"
        )
    if not vit.dynamic_img_size:
        raise ValueError(
            f"{name} takes one image size only; set model_args: "
            "{dynamic_img_size: true}"
        )
    if isinstance(vit.norm, nn.Identity):
        raise ValueError(
            f"{name} has its last norm after pooling; set model_args: "
            "{use_fc_norm: false}, or take another architecture"
        )
