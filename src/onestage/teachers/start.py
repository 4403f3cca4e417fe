"""Another library's model in our own layout, to start from (`--init`).

open_clip's towers and timm's trunks are the very modules that our encoders hold, so that only the names around them
change. A head that is one linear map is the head of the joint space. CLIP of transformers has q, k and v apart, and
other names for the same parts. A tower that none of our encoders is made of is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer as ClipVision
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from onestage.encoders import ClipText
from onestage.predictors import Linear
from onestage.spec import UserError
from onestage.teachers.bundle import BundleSpec, LibraryImage, TextSide
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.stored import Stored
from onestage.teachers.text import ClipWords, TextTower
from onestage.teachers.tower_clip import ClipTower
from onestage.teachers.tower_hf import HfTower
from onestage.teachers.tower_timm import TimmTower

IMAGE, TEXT, JOINT = "student", "text", "joint"
"""What the encoders and the head are called."""
NAMES = (
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.patch_embedding.", "conv1."),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.", "token_embedding."),
    ("pre_layrnorm.", "ln_pre."),
    ("post_layernorm.", "ln_post."),
    ("final_layer_norm.", "ln_final."),
    ("encoder.layers.", "transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
"""What transformers calls the parts of CLIP's towers, and what open_clip calls them."""
QUERY = ".self_attn.q_proj."
NORM = "head.norm."
"""Where a ConvNeXt has its last norm, which our encoder keeps."""


def stored_library(teacher: LibraryTeacher) -> Stored:
    """A model that was loaded from another library.

    Raises:
        UserError: when its image tower is none that an encoder of ours is made of.
    """
    image, head = _image(teacher)
    weights = {f"encoders.{IMAGE}.{key}": value for key, value in image.items()}
    weights |= {f"predictors.{JOINT}.map.{key}": value for key, value in head.items()}
    side = None
    if teacher.has_text:
        side, text = _text(teacher, teacher.text_tower())
        weights |= {f"encoders.{TEXT}.tower.{key}": value for key, value in text.items()}
    bundle = BundleSpec(
        encoder=LibraryImage(reference=teacher.reference, statistics=teacher.statistics),
        name=IMAGE,
        head_of=JOINT if head else None,
        head=Linear() if head else None,
        joint=head["weight"].shape[0] if head else None,
        text=side,
        licence=teacher.licence,
    )
    return Stored(Path(teacher.reference), bundle, weights)


def _image(teacher: LibraryTeacher) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights of an image tower by the names of our encoders, and those of its head."""
    tower = teacher.tower
    if isinstance(tower, ClipTower):
        network: ClipVision = tower.network
        own = {key: value for key, value in network.state_dict().items() if key != "proj"}
        head = {} if network.proj is None else _without_bias(network.proj.T)
        return {f"tower.{key}": value for key, value in own.items()}, head
    if isinstance(tower, TimmTower):
        return _timm(teacher.reference, tower)
    if isinstance(tower, HfTower) and type(tower.network).__name__ in {"CLIPVisionModel", "CLIPVisionTransformer"}:
        weights = as_open_clip(tower.network)
        return {f"tower.{key}": value for key, value in weights.items()}, _without_bias(tower.projection.weight)
    kind = type(tower.network if isinstance(tower, HfTower) else tower).__name__
    raise UserError(
        f"{teacher.reference}: no encoder of ours is made of its image tower ({kind}), so no run can start from it. "
        "timm: has most of these weights for a vit encoder, and open_clip: those of CLIP."
    )


def _timm(reference: str, tower: TimmTower) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    trunk = tower.trunk
    if not isinstance(trunk, (VisionTransformer, Eva, SwinTransformer, SwinTransformerV2, ConvNeXt)):
        raise UserError(
            f"{reference}: no encoder of ours is made of {type(trunk).__name__}, so no run can start from it; use a "
            "ViT, an EVA-02, a Swin or a ConvNeXt"
        )
    own = {
        key: value for key, value in trunk.state_dict().items() if not key.startswith("head.") or key.startswith(NORM)
    }
    layers = [] if tower.head is None else [*_leaves(trunk.head), *_leaves(tower.head)]
    head: dict[str, Tensor] = {}
    if len(layers) == 1 and isinstance(layers[0], nn.Linear):
        head = dict(layers[0].state_dict()) if layers[0].bias is not None else _without_bias(layers[0].weight)
    return {f"backbone.{key}": value for key, value in own.items()}, head


def _leaves(module: nn.Module) -> list[nn.Module]:
    """The layers of a head that change anything."""
    found = [one for one in module.modules() if not list(one.children()) and not isinstance(one, nn.Sequential)]
    return [one for one in found if not isinstance(one, (nn.Identity, nn.Dropout))]


def _without_bias(weight: Tensor) -> dict[str, Tensor]:
    """A linear map whose bias is 0."""
    return {"weight": weight.detach().contiguous(), "bias": torch.zeros(len(weight), device=weight.device)}


def _text(teacher: LibraryTeacher, tower: TextTower | None) -> tuple[TextSide | None, dict[str, Tensor]]:
    """The text tower by the names of CLIP's, where it is CLIP's."""
    if isinstance(tower, ClipWords) and isinstance(tower.spec, ClipText):
        side = TextSide(encoder=tower.spec, trained_as=TEXT, scale=teacher.scale)
        return side, dict(tower.encoder.tower.state_dict())
    (network,) = tower.parts() if tower is not None else (None,)
    if type(network).__name__ != "CLIPTextModelWithProjection":
        return None, {}
    made: Any = network
    weights = as_open_clip(made.text_model) | {"text_projection": made.text_projection.weight.T.contiguous()}
    config = made.config
    spec = ClipText(
        joint=weights["text_projection"].shape[1],
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        activation="quick_gelu" if config.hidden_act == "quick_gelu" else "gelu",
    )
    return TextSide(encoder=spec, trained_as=TEXT, scale=teacher.scale), weights


def as_open_clip(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a tower of transformers' CLIP by open_clip's names."""
    given, made = dict(network.state_dict()), {}
    for key, value in given.items():
        name = key.removeprefix("vision_model.").removeprefix("text_model.")
        for theirs, ours in NAMES:
            name = name.replace(theirs, ours)
        if QUERY in key:
            parts = [given[key.replace(QUERY, QUERY.replace("q_", letter))] for letter in ("q_", "k_", "v_")]
            place, leaf = name.split(QUERY)
            made[f"{place}.attn.in_proj_{leaf}"] = torch.cat(parts)
        elif "_proj." not in name or ".out_proj." in name or ".c_proj." in name:
            made[name] = value
    return {key: value for key, value in made.items() if not key.endswith("position_ids")}
