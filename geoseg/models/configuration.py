"""Configuration of the ViT-Adapter backbone."""

# No `from __future__ import annotations`: `strict` checks values against the fields'
# types, and would find text in their place.
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import SubConfigSpec

TIMM = "timm_wrapper"
"""Model type of timm's models, as transformers wraps them."""

_NO_LABELS = {"num_classes": 0, "label_names": []}
"""What transformers wants of timm's models, and asks timm for if it is not there."""


@strict
class ViTAdapterConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of `ViTAdapterBackbone`.

    Attributes:
        backbone_config: Configuration of the ViT (`DINOv3ViTConfig`, four registers;
            `encoders.py` lists the others).
        interaction_indexes: Zero-based blocks after which an interaction follows.
        use_injector: Let ViT tokens query the spatial prior between the block groups.
        freeze_backbone: Keep the ViT without gradients and in eval mode.
        feature_norm: Apply the ViT's final norm to every tap, as published.
        conv_inplane: Channels of the spatial prior's stem.
        n_points: Sampling points per head and level.
        deform_num_heads: Heads of deformable attention.
        deform_ratio: Width of its values relative to the ViT's.
        cffn_ratio: Width of the feed-forward network relative to the ViT's.
        extra_extractors: Extractors that follow the last interaction.
        add_vit_feature: Add the ViT's taps to the four levels at the end.
    """

    model_type = "vit_adapter"
    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="dinov3_vit",
            init_kwargs={"num_register_tokens": 4},  # HF's default is 0
        )
    }

    backbone_config: dict | PreTrainedConfig | None = None  # type: ignore[type-arg]
    interaction_indexes: list[int] | tuple[int, ...] = (4, 11, 17, 23)
    use_injector: bool = False
    freeze_backbone: bool = True
    feature_norm: bool = True
    conv_inplane: int = 64
    n_points: int = 4
    deform_num_heads: int = 16
    deform_ratio: float = 0.5
    cffn_ratio: float = 0.25
    extra_extractors: int = 2
    add_vit_feature: bool = True
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - as HF has it
        """Resolve the ViT's configuration and the names of the four levels."""
        given = self.backbone_config
        if isinstance(given, dict) and given.get("model_type") == TIMM:
            self.backbone_config = _NO_LABELS | given
        self.stage_names = [f"stage{level}" for level in range(1, 5)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None),
            out_features=kwargs.pop("out_features", None) or self.stage_names,
        )
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
