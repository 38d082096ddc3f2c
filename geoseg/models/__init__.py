"""Models: the ViT-Adapter backbone, the segmenter, and where checkpoints come from.

Importing this package registers `vit_adapter` with transformers.
"""

from geoseg.models.backbone import ViTAdapterBackbone
from geoseg.models.configuration import ViTAdapterConfig
from geoseg.models.registry import find_model, load_model, read_spec
from geoseg.models.segmenter import build_mask2former, class_logits, query_logits

__all__ = [
    "ViTAdapterBackbone",
    "ViTAdapterConfig",
    "build_mask2former",
    "class_logits",
    "find_model",
    "load_model",
    "query_logits",
    "read_spec",
]
