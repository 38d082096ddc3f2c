"""The vision transformer inside a model: its attention modules, patches and tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from geoseg.errors import ExplainError

CLS = "cls"
"""Name of the token that stands for the whole image."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Which token is what: those that are no patches, then patches by row."""

    extra: tuple[str, ...]
    """Names of the tokens that are no patches: `cls`, `register 1`, ..."""
    shape: tuple[int, int]
    """Rows and columns of patches."""

    def __len__(self) -> int:
        """Return the number of all tokens, N."""
        return len(self.extra) + self.shape[0] * self.shape[1]

    def patch(self, row: int, col: int) -> int:
        """Return the index of a patch's token.

        Raises:
            ExplainError: There is no such patch.
        """
        height, width = self.shape
        if not (0 <= row < height and 0 <= col < width):
            raise ExplainError(
                f"there is no patch in row {row}, column {col}; rows are 0 to "
                f"{height - 1} and columns 0 to {width - 1}"
            )
        return len(self.extra) + row * width + col

    def index(self, name: str) -> int:
        """Return the index of a token that is no patch.

        Raises:
            ExplainError: There is none of that name.
        """
        if name not in self.extra:
            known = ", ".join(["patch", *self.extra])
            raise ExplainError(f"the model has no token {name!r}; it has {known}")
        return self.extra.index(name)


@dataclass(frozen=True)
class ViT:
    """A vision transformer and how its attention weights are had."""

    module: nn.Module
    """The transformer itself; takes an image, gives tokens."""
    listened: Mapping[str, nn.Module]
    """Modules that give attention weights, by the number of their layer."""
    patch_size: tuple[int, int]
    """Height and width of a patch, pixels."""
    extra: tuple[str, ...]
    """Names of the tokens before the patches."""

    @property
    def depth(self) -> int:
        """Number of its layers."""
        return len(self.listened)

    def run(self, images: Tensor) -> Any:  # noqa: ANN401 - each library's own
        """Run the transformer alone; learned positions are fitted to the image."""
        parameters = inspect.signature(self.module.forward).parameters
        if "interpolate_pos_encoding" in parameters:  # ViT and DeiT of transformers.
            return self.module(images, interpolate_pos_encoding=True)
        return self.module(images)

    def features(self, images: Tensor) -> Tensor:
        """Return the patches' features after the last norm.

        Args:
            images: One normalised image, shape (1, C, H, W).

        Returns:
            Shape (D, rows, columns) of patches, float32, on the CPU.
        """
        tokens = self.tokens(images.shape[2], images.shape[3])
        timms = getattr(self.module, "forward_features", None)
        output = timms(images) if timms else self.run(images).last_hidden_state
        # From the end: EoMT has its queries in front.
        count = len(tokens) - len(tokens.extra)
        patches = output[0, -count:].float().cpu().transpose(0, 1)
        features: Tensor = patches.unflatten(1, tokens.shape)
        return features

    def tokens(self, height: int, width: int) -> Tokens:
        """Return the tokens of an image of some pixels."""
        rows, cols = height // self.patch_size[0], width // self.patch_size[1]
        return Tokens(self.extra, (rows, cols))


def find_vit(model: nn.Module) -> ViT:
    """Find the vision transformer of a model, the model itself or inside it.

    Args:
        model: A Hugging Face or timm ViT, or any model with one inside.

    Raises:
        ExplainError: There is none whose attention can be read.
    """
    for module in model.modules():
        found = _hugging_face(module) or _timm(module)
        if found is not None:
            return found
    raise ExplainError(
        f"a {type(model).__name__} has no vision transformer whose attention geoseg "
        "can read; explain a plain ViT of Hugging Face (DINOv3, DINOv2, ViT) or timm"
    )


@contextmanager
def attention_weights_given(model: nn.Module) -> Iterator[None]:
    """Have every attention of a model work its weights out, within a block.

    Fused kernels (`sdpa`, flash) never write them: Hugging Face models are switched to
    their `eager` implementation, timm's to the unfused one, and back.
    """
    configs, fused = _configs(model), _fused(model)
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = "eager"
        for module in fused:
            module.fused_attn = False
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
        for module in fused:
            module.fused_attn = True


def _configs(model: nn.Module) -> list[Any]:
    """Return configurations that choose an attention kernel, each once."""
    found = {
        id(config): config
        for module in model.modules()
        if hasattr(config := getattr(module, "config", None), "_attn_implementation")
    }
    return list(found.values())


def _fused(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if getattr(m, "fused_attn", False) is True]


def _hugging_face(module: nn.Module) -> ViT | None:
    config = getattr(module, "config", None)
    patch = _pair(getattr(config, "patch_size", None))
    heads = getattr(config, "num_attention_heads", None)
    if patch is None or not isinstance(heads, int):
        return None
    attentions = [m for m in module.modules() if _is_attention(m, config)]
    if not attentions:
        return None
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    parameters = {name.rpartition(".")[2] for name, _ in module.named_parameters()}
    extra: tuple[str, ...] = (CLS,) if "cls_token" in parameters else ()
    if "distillation_token" in parameters:
        extra += ("distillation",)
    return ViT(module, _numbered(attentions), patch, extra + _registers(registers))


def _is_attention(module: nn.Module, config: object) -> bool:
    """Tell a module that calls one of transformers' attention kernels."""
    return (
        getattr(module, "config", None) is config
        and (hasattr(module, "scaling") or hasattr(module, "scale"))
        and hasattr(module, "is_causal")
    )


def _timm(module: nn.Module) -> ViT | None:
    blocks, embed = (
        getattr(module, "blocks", None),
        getattr(module, "patch_embed", None),
    )
    patch = _pair(getattr(embed, "patch_size", None))
    prefix = getattr(module, "num_prefix_tokens", None)
    if patch is None or not isinstance(prefix, int) or blocks is None:
        return None
    # What their dropout gets are the weights; in eval mode it passes them on.
    drops = [
        m.attn_drop
        for m in blocks.modules()
        if hasattr(m, "fused_attn") and isinstance(m.attn_drop, nn.Module)
    ]
    if not drops:
        return None
    has_cls = getattr(module, "cls_token", None) is not None
    extra = (CLS,) if has_cls else ()
    return ViT(module, _numbered(drops), patch, extra + _registers(prefix - len(extra)))


def _registers(count: int) -> tuple[str, ...]:
    return tuple(f"register {number}" for number in range(1, count + 1))


def _numbered(modules: list[nn.Module]) -> dict[str, nn.Module]:
    return {str(number): module for number, module in enumerate(modules)}


def _pair(size: object) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        height, width = size
        return int(height), int(width)
    return None
