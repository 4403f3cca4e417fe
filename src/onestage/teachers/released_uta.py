"""The checkpoints that UTA's authors released (arXiv:2405.19009; github.com/jihaonew/UTA), as models of ours.

`visual.*` is an EVA-02 with q, k and v apart, SwiGLU and a norm inside the feed-forward but none inside attention, and
a linear head on every row; `text.*` is the text tower of EVA01-CLIP-g-14-plus. Both are timm's and open_clip's own
modules under other names, so nothing is computed otherwise. A file holds no numbers of heads: an image tower's are read
from the width of its rotary table, a text tower has one for every 64 values of its width, as CLIP's do.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from onestage.encoders import ClipText, Vit
from onestage.predictors import Linear
from onestage.spec import UserError
from onestage.storage import read_safetensors
from onestage.teachers.bundle import BundleSpec, TextSide
from onestage.teachers.files import licence_in, need_safetensors
from onestage.teachers.run import RunTeacher, model_of
from onestage.teachers.stored import Stored, under

PREFIX = "uta:"
ARCHITECTURE = "eva02_base_patch14_224"
TERM = "align"
NAMES = (
    ("mlp.ffn_ln.", "mlp.norm."),
    ("mlp.w1.", "mlp.fc1_g."),
    ("mlp.w2.", "mlp.fc1_x."),
    ("mlp.w3.", "mlp.fc2."),
    ("attn.q_bias", "attn.q_proj.bias"),
    ("attn.v_bias", "attn.v_proj.bias"),
)
"""What the released code calls the parts of a block, and what timm calls them."""
TABLE = "rope.freqs_cos"
HEAD = 64


def load_uta(reference: str, device: torch.device) -> RunTeacher:
    """A released model: `uta:FILE`, a file of safetensors.

    Raises:
        UserError: when it is not there, is a pickle, or is not such a checkpoint.
    """
    return model_of(reference, stored_uta(reference), "student", None, device)


def stored_uta(reference: str) -> Stored:
    """A released checkpoint in our own layout.

    Raises:
        UserError: when it is not there, is a pickle, or is not such a checkpoint.
    """
    file = need_safetensors(reference, Path(reference.removeprefix(PREFIX)))
    given = read_safetensors(file)
    visual, text = under(given, "visual."), under(given, "text.")
    try:
        encoder, tower = _vit(visual), _clip_text(text)
        head = {name: visual.pop(f"head.{name}") for name in ("weight", "bias")}
        scale = float(given["logit_scale"].exp())
    except KeyError as error:
        raise UserError(
            f"{reference}: not a checkpoint in the layout that UTA released: it has no {error.args[0]} "
            "(expected visual.*, text.* and logit_scale)"
        ) from None
    weights = {
        f"encoders.student.backbone.{_renamed(key)}": value for key, value in visual.items() if TABLE[:5] not in key
    }
    weights |= {f"encoders.text.tower.{key}": value for key, value in text.items()}
    weights |= {f"predictors.{TERM}.map.{name}": value for name, value in head.items()}
    bundle = BundleSpec(
        encoder=encoder,
        name="student",
        head_of=TERM,
        head=Linear(),
        joint=head["weight"].shape[0],
        text=TextSide(encoder=tower, trained_as="text", scale=scale),
        licence=licence_in(file.parent),
    )
    return Stored(file, bundle, weights)


def _renamed(key: str) -> str:
    for theirs, ours in NAMES:
        key = key.replace(theirs, ours)
    return key


def _vit(visual: dict[str, Tensor]) -> Vit:
    """The sizes of an image tower, from the shapes of its weights."""
    width, _, patch, _ = visual["patch_embed.proj.weight"].shape
    side = math.isqrt(visual["pos_embed"].shape[1] - 1)
    table = visual.get(TABLE)
    hidden = visual["blocks.0.mlp.w1.weight"].shape[0]
    return Vit(
        arch=ARCHITECTURE,
        size=side * patch,
        patch=patch,
        width=width,
        depth=_depth(visual, "blocks."),
        heads=width // (HEAD if table is None else table.shape[-1]),
        mlp_ratio=(hidden + 0.5) / width,  # timm cuts the product down to a whole number
        normalise="clip",
    )


def _clip_text(text: dict[str, Tensor]) -> ClipText:
    """The sizes of a text tower, from the shapes of its weights."""
    vocabulary, width = text["token_embedding.weight"].shape
    return ClipText(
        joint=text["text_projection"].shape[1],
        width=width,
        depth=_depth(text, "transformer.resblocks."),
        heads=width // HEAD,
        mlp_ratio=(text["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] + 0.5) / width,
        context=text["positional_embedding"].shape[0],
        vocabulary=vocabulary,
    )


def _depth(weights: dict[str, Tensor], prefix: str) -> int:
    """How many blocks there are."""
    return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix))
