"""DALL-E's image tokenizer as a frozen code book (arXiv:2102.12092, sec. 2.1 and appendix A.1; openai/DALL-E): BEiT's.

A discrete VAE's encoder: a 7 x 7 convolution, four groups of two residual blocks with max pooling between the groups,
and scores of 8192 codes for every cell of 8 x 8 pixels; a cell's code has the highest score. Pixels in [0, 1] are
squeezed to [0.1, 0.9]. A student of 224 pixels and patches of 16 has as many cells as 112 pixels have here (BEiT,
arXiv:2106.08254, sec. 2.1). Released is a pickle of the whole module, which is not opened: what is read is a file of
safetensors with its weights, in the names of that module or in those that transformers has for the same network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from onestage.layers.normalise import in_unit
from onestage.ops import place_of
from onestage.roles import ALONE, Space, Teacher
from onestage.spec import UserError
from onestage.storage import read_safetensors
from onestage.teachers.files import licence_in, need_safetensors
from onestage.teachers.resize import to_size, whole
from onestage.teachers.spaces import no_categories
from onestage.types import Also, Grid, Images, Tokens

PREFIX = "dalle:"
SIZE, CELL = 112, 8
GROUPS, BLOCKS = 4, 2
MARGIN = 0.1
NAMES = ((".group.", "."), (".path.", "."))
"""What transformers' names have more than the released ones."""
LEAVES = {"w": "weight", "b": "bias"}


@final
class DalleTeacher(Teacher):
    """Codes of every cell, and as raw rows what the scores are made of; no texts."""

    def __init__(self, reference: str, network: nn.Sequential, licence: str, device: torch.device) -> None:
        self.reference, self.licence, self.scale = reference, licence, 1.0
        self.network = network.requires_grad_(False).eval().to(device)
        self.grid: Grid = (SIZE // CELL, SIZE // CELL)
        self.size, self.statistics = SIZE, "own"
        self.has_text, self.has_joint, self.templates = False, False, ()
        scores = network[-1]
        assert isinstance(scores, nn.Conv2d), "the scores come last"
        self.codes, self._width = scores.out_channels, scores.in_channels

    def parts(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def width(self, space: Space) -> int:
        if space == "joint":
            raise UserError(f"{self.reference}: a tokenizer has no space that it shares with texts; use space: codes")
        if space == "categories":
            no_categories(self.reference)
        return self.codes if space == "codes" else self._width

    @torch.no_grad()
    def tokens(self, pixels: Images, space: Space, also: Also = ALONE) -> Tokens:
        self.width(space)
        if also != ALONE:
            raise UserError(f"{self.reference}: a tokenizer has no attention and no blocks of a transformer to give")
        # Codes flip between near scores: they are computed in fp32 whatever the run's precision is.
        with torch.autocast(pixels.device.type, enabled=False):
            images = in_unit(to_size(pixels, self.size, "bicubic")).float() * (1 - 2 * MARGIN) + MARGIN
            maps = self.network[:-1](images)
            rows = maps.flatten(2).transpose(1, 2)
            if space == "codes":
                rows = self.network[-1](maps).argmax(dim=1).flatten(1).unsqueeze(-1).float()
        cells = torch.arange(rows.shape[1], device=rows.device).expand(rows.shape[0], -1)
        pooled = torch.zeros_like(rows[:, 0]) if space == "codes" else rows.mean(dim=1)
        return Tokens(rows, pooled, place_of(cells), self.grid, whole(pixels))

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        raise UserError(f"{self.reference}: a tokenizer has no text tower, so texts cannot be compared with images")

    def text_tower(self) -> None:
        """None: it reads no texts."""


def load_dalle(reference: str, device: torch.device) -> DalleTeacher:
    """A converted tokenizer: `dalle:FILE`, a file of safetensors.

    Raises:
        UserError: when it is not there, is a pickle, or is not this network.
    """
    file = need_safetensors(reference, Path(reference.removeprefix(PREFIX)))
    weights = {_renamed(key): value.float() for key, value in read_safetensors(file).items()}
    try:
        first, last = weights["input.weight"].shape[0], weights["output.conv.weight"].shape[0]
        network = encoder(first, last)
        network.load_state_dict({key: weights.pop(name) for key, name in _places(network).items()})
    except KeyError as error:
        raise UserError(
            f"{reference}: not DALL-E's encoder: it has no {error.args[0]} (expected blocks.input, blocks.group_1 to "
            "blocks.group_4 and blocks.output, as in the file that docs/teachers.md shows how to convert)"
        ) from None
    except RuntimeError as error:
        raise UserError(f"{reference}: not DALL-E's encoder: {str(error).splitlines()[-1].strip()}") from None
    return DalleTeacher(reference, network, licence_in(file.parent), device)


def encoder(width: int, codes: int) -> nn.Sequential:
    """The network: groups of `width`, 2, 4 and 8 times that many channels, then scores of codes, as last module."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(3, width, 7, padding=3))
    before = width
    for group in range(GROUPS):
        channels = width * 2**group
        for block in range(BLOCKS):
            layers[f"group_{group + 1}:block_{block + 1}"] = _Residual(before, channels)
            before = channels
        if group < GROUPS - 1:
            layers[f"pool_{group + 1}"] = nn.MaxPool2d(2)
    layers["relu"] = nn.ReLU()
    layers["output:conv"] = nn.Conv2d(before, codes, 1)
    return nn.Sequential(layers)


@final
class _Residual(nn.Module):
    """Four convolutions behind ReLUs, added with a share of one over the square of the number of blocks."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        inside = after // 4
        self.id_path = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = (before, inside, inside, inside, after)
        for number, side in enumerate((3, 3, 3, 1), start=1):
            layers[f"relu_{number}"] = nn.ReLU()
            layers[f"conv_{number}"] = nn.Conv2d(widths[number - 1], widths[number], side, padding=side // 2)
        self.res_path = nn.Sequential(layers)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        return self.id_path(images) + self.res_path(images) / (GROUPS * BLOCKS) ** 2


def _places(network: nn.Module) -> dict[str, str]:
    """The name of every weight here, and in a file."""
    return {key: key.replace(":", ".") for key in network.state_dict()}


def _renamed(key: str) -> str:
    """A name in a file of either kind, as one."""
    for theirs, plain in NAMES:
        key = key.replace(theirs, plain)
    stem, _, leaf = key.removeprefix("blocks.").rpartition(".")
    return f"{stem}.{LEAVES.get(leaf, leaf)}"
