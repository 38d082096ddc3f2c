"""timm's ViTs for the adapter. Only models that ask for one import this module.

Weights keep timm's own names, under `timm_model.`, so that checkpoints load unchanged.
Position embeddings, where a model has them, are interpolated by timm: bicubically, with
antialiasing.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from geoseg.errors import ModelError

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


class TimmEncoder(TimmWrapperModel):
    """A ViT of timm, by the name of its architecture (`vit_large_patch16_dinov3`).

    Args:
        config: `architecture`, and `model_args` for `timm.create_model`.

    Raises:
        ValueError: There is no such architecture, or it is not one the adapter can run
            block by block at any size.
    """

    timm_model: Any

    def __init__(self, config: TimmWrapperConfig) -> None:
        if not timm.is_model(config.architecture):
            raise ValueError(
                f"timm {timm.__version__} has no architecture '{config.architecture}'; "
                "timm.list_models() names those it has"
            )
        super().__init__(config)
        _check(self.timm_model, config)
        # For those who read the configuration alone, which timm would not tell.
        config.patch_size = self.patch

    @property
    def width(self) -> int:
        """See `Encoder`."""
        return cast(int, self.timm_model.embed_dim)

    @property
    def patch(self) -> int:
        """See `Encoder`."""
        height, width = self.timm_model.patch_embed.patch_size
        return cast(int, height if height == width else (height, width))

    @property
    def num_prefix_tokens(self) -> int:
        """See `Encoder`."""
        return cast(int, self.timm_model.num_prefix_tokens)

    @property
    def blocks(self) -> nn.ModuleList:
        """See `Encoder`."""
        return cast(nn.ModuleList, self.timm_model.blocks)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """See `Encoder`."""
        vit = self.timm_model
        # Private, and in both classes what places the tokens before the first block.
        tokens, arguments = vit._pos_embed(vit.patch_embed(pixel_values)), {}
        if isinstance(vit, Eva):
            tokens, arguments["rope"] = tokens
        return vit.norm_pre(tokens), arguments

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `Encoder`."""
        return cast(Tensor, self.timm_model.norm(tokens))


def _check(vit: nn.Module, config: TimmWrapperConfig) -> None:
    name = config.architecture
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
