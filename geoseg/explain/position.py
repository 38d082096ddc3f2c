"""How a ViT knows where a patch is: learned embeddings, and rotary ones.

Learned ones (Dosovitskiy et al., 2021) are a table for one grid, interpolated for any
other. Rotary ones (Su et al., RoFormer, 2021; DINOv3) turn queries and keys by angles
that grow with the patch's coordinates: they fit any grid as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.errors import ExplainError
from geoseg.explain.vit import ViT

_TABLES = ("position_embeddings", "pos_embed")
"""Names of the table in Hugging Face's models and in timm's."""


def interpolate_positions(
    table: Tensor, grid: tuple[int, int], *, extra: int, antialias: bool = False
) -> Tensor:
    """Fit a table of learned position embeddings to another grid of patches.

    Bicubic, with corners not aligned. With `antialias`, as timm has it, a smaller grid
    is filtered first; to a larger one it is the same interpolation with another bicubic
    coefficient (-0.5 instead of -0.75). transformers does without, for DINOv2 with
    registers apart.

    Args:
        table: Embeddings of `extra` tokens, then of a square grid, shape (1, N, C).
        grid: Rows and columns wanted.
        extra: Tokens in front that are no patches; they are kept as they are.
        antialias: Filter before sampling.

    Returns:
        Shape (1, extra + rows * columns, C), the table's dtype.

    Raises:
        ExplainError: The table is not that of a square grid.
    """
    prefix, patches = table[:, :extra], table[:, extra:]
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1]:
        raise ExplainError(
            f"a table of {table.shape[1]} positions with {extra} extra tokens is not "
            "that of a square grid; give the number of tokens that are no patches"
        )
    if grid == (side, side):
        return table
    image = patches.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    fitted = F.interpolate(
        image, size=grid, mode="bicubic", align_corners=False, antialias=antialias
    )
    flat = fitted.flatten(2).transpose(1, 2).to(table.dtype)
    return torch.cat([prefix, flat], dim=1)


def learned_positions(vit: ViT) -> tuple[Tensor, int] | None:
    """Return a ViT's table of positions, (1, N, C), and its tokens that are no patches.

    None if it has no table, as DINOv3.
    """
    for name, parameter in vit.module.named_parameters():
        if name.rpartition(".")[2] not in _TABLES or parameter.ndim != 3:
            continue
        count = parameter.shape[1]
        # Registers have no position, and some tables begin with the first patch.
        for extra in range(len(vit.extra) + 1):
            side = round((count - extra) ** 0.5)
            if side * side == count - extra:
                return parameter.detach().float().cpu(), extra
    return None


def table_similarity(table: Tensor, extra: int, patch: int) -> Tensor:
    """Return the cosine between a patch's position and all patches', shape (N,)."""
    patches = F.normalize(table[0, extra:], dim=-1)
    return patches @ patches[patch]


@torch.inference_mode()
def rotary_angles(vit: ViT, images: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return cosines and sines of a ViT's rotary embedding, (patches, C) each.

    None if it has none that geoseg can read.
    """
    embedding = getattr(vit.module, "rope_embeddings", None)
    if isinstance(embedding, nn.Module):
        cosines, sines = embedding(images)
        return cosines.float().cpu(), sines.float().cpu()
    embed = getattr(getattr(vit.module, "rope", None), "get_embed", None)
    if embed is None:
        return None
    shape = list(vit.tokens(images.shape[2], images.shape[3]).shape)
    sines, cosines = embed(shape).float().cpu().chunk(2, dim=-1)
    return cosines, sines


def rotary_similarity(cosines: Tensor, sines: Tensor, patch: int) -> Tensor:
    """Return what rotation leaves of the product of a vector with itself, shape (N,).

    The mean over channels of cos(angle of the patch - angle of each patch): 1 at the
    patch itself; it depends on the distance between the two only.
    """
    return (cosines * cosines[patch] + sines * sines[patch]).mean(dim=-1)
