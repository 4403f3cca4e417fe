"""open_clip's models by name and tag, by name and file, or from a folder as open_clip publishes it.

A file does not say how its pixels were normalised or which GELU it was trained with; open_clip's table of published
weights does. A file is therefore held against the tags of its architecture, and refused where they disagree.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from onestage.spec import UserError, suggest
from onestage.teachers.files import licence_in, licence_of, need_safetensors, one_line, weights_in
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.text_open_clip import CONFIG, text_of
from onestage.teachers.tower import Pixels, Tower
from onestage.teachers.tower_clip import ClipTower, CocaTower
from onestage.teachers.tower_timm import TimmTower

PREFIX = "open_clip:"
PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""In the order in which open_clip chooses among them."""
STATISTICS = ("mean", "std", "interpolation", "resize_mode")


class Found(NamedTuple):
    """What a reference leads to."""

    name: str
    weights: str | None
    """A file; None where open_clip finds it in the folder that `name` names."""
    preprocess: dict[str, Any]
    licence: str


def load_open_clip(reference: str, device: torch.device) -> LibraryTeacher:
    """An open_clip model: `open_clip:NAME/TAG_OR_FILE` or `open_clip:local-dir:DIR`.

    Raises:
        UserError: when it is not there, does not fit its weights, or is stored as a pickle.
    """
    found = _find(reference)
    try:
        model: Any = open_clip.create_model_from_pretrained(
            found.name,
            pretrained=found.weights,
            device="cpu",
            image_mean=found.preprocess.get("mean"),
            image_std=found.preprocess.get("std"),
            image_interpolation=found.preprocess.get("interpolation"),
            image_resize_mode=found.preprocess.get("resize_mode"),
            return_transform=False,
        )
    except Exception as error:  # open_clip raises many kinds for a wrong name, file or shape
        raise UserError(f"{reference}: open_clip cannot load it: {one_line(error)}") from None
    model.requires_grad_(False).eval()
    pixels = pixels_of(reference, model.visual)
    tower = tower_of(reference, model.visual, pixels.size, open_clip.get_model_config(found.name) or {})
    texts = partial(text_of, reference, model, found.name, device)
    return LibraryTeacher(reference, tower, pixels, texts, float(model.logit_scale.exp()), found.licence, device)


def tower_of(reference: str, visual: nn.Module, size: int, config: dict[str, Any]) -> Tower:
    """The image tower of an open_clip model.

    Raises:
        UserError: for a tower that gives no dense rows.
    """
    if isinstance(visual, VisionTransformer):
        return ClipTower(visual) if visual.attn_pool is None else CocaTower(visual)
    if isinstance(visual, TimmModel):
        try:
            return TimmTower(visual.trunk, size, visual.head, config.get("embed_dim"))
        except UserError as error:
            raise UserError(f"{reference}: {error}") from None
    raise UserError(
        f"{reference}: its image tower ({type(visual).__name__}) ends in an attention pool over a map of features, "
        "which a cell alone has no exact place in. Use a ViT (CLIP ViT, EVA-CLIP, SigLIP)."
    )


def pixels_of(reference: str, visual: Any) -> Pixels:
    """How a tower wants its images, from what open_clip attached to it.

    Raises:
        UserError: for an interpolation that is neither bicubic nor bilinear.
    """
    config = visual.preprocess_cfg
    size = config["size"]
    side = int(size[0] if isinstance(size, (tuple, list)) else size)
    if config["interpolation"] not in {"bicubic", "bilinear"}:
        raise UserError(f"{reference}: its images are resized by '{config['interpolation']}', which is not known here")
    return Pixels(side, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))


def _find(reference: str) -> Found:
    rest = reference.removeprefix(PREFIX)
    if rest.startswith("local-dir:"):
        folder = Path(rest.removeprefix("local-dir:"))
        if not (folder / CONFIG).is_file():
            raise UserError(f"{reference}: {folder} holds no {CONFIG}")
        weights_in(reference, folder, PREFERRED)
        return Found(f"local-dir:{folder}", None, {}, licence_in(folder))
    name, _, weights = rest.partition("/")
    config = open_clip.get_model_config(name)
    tags = _tags(name)
    if config is None:
        raise UserError(f"{reference}: open_clip has no model '{name}'{suggest(name, open_clip.list_models())}")
    if not weights:
        raise UserError(f"{reference}: expected open_clip:NAME/TAG_OR_FILE; {name} has {_list(tags)}")
    file = Path(weights)
    if file.suffix or file.exists():
        need_safetensors(reference, file)
        _check_activation(reference, name, config, _named(file, [*tags, *_tags(_sibling(name))]))
        return Found(name, str(file), _of_file(reference, name, file, tags), licence_in(file.parent))
    published = open_clip.get_pretrained_cfg(name, weights)
    if not published:
        raise UserError(f"{reference}: '{weights}' is neither a file here nor a tag of {name}, which has {_list(tags)}")
    _check_activation(reference, name, config, weights)
    preprocess = {key: published[key] for key in STATISTICS}
    return Found(name, _download(reference, published), preprocess, licence_of(published["hf_hub"]))


def _download(reference: str, published: dict[str, Any]) -> str:
    """The file of a tag, through open_clip's own hub code (its cache first)."""
    repository = "/".join(published.get("hf_hub", "").split("/")[:2])
    if not repository:
        raise UserError(f"{reference}: this tag is published as a pickle only; convert it and use open_clip:NAME/FILE")
    try:
        return str(download_pretrained_from_hf(repository, filename=PREFERRED[0]))
    except Exception as error:  # the hub raises many kinds
        raise UserError(
            f"{reference}: {PREFERRED[0]} of {repository} is neither in the cache nor to be had ({one_line(error)}). "
            f"Fetch it where there is a network, and give the file: {reference.partition('/')[0]}/FILE. In place of a "
            "recipe's own teacher another can be given: --teacher REF (see: onestage ls teachers)."
        ) from None


def _of_file(reference: str, name: str, file: Path, tags: list[str]) -> dict[str, Any]:
    """How the images of a file are prepared: as its own tag says, or as all tags of the architecture agree."""
    ways = {tag: {key: open_clip.get_pretrained_cfg(name, tag)[key] for key in STATISTICS} for tag in tags}
    tag = _named(file, tags)
    if tag is not None:
        return ways[tag]
    different = {str(way): way for way in ways.values()}
    if len(different) > 1:
        raise UserError(
            f"{reference}: the published weights of {name} normalise pixels in {len(different)} ways, and the file's "
            f"name does not say which of {', '.join(tags)} it is. Put the tag into its name, or use a folder with "
            "open_clip_config.json: open_clip:local-dir:DIR."
        )
    return next(iter(different.values()), {})


def _named(file: Path, tags: list[str]) -> str | None:
    """The longest tag that a file, or else its folder, is named by."""
    for where in (file.name, file.absolute().parent.name):
        held = [tag for tag in tags if tag.lower().replace("-", "_") in where.lower().replace("-", "_")]
        if held:
            return max(held, key=len)
    return None


def _check_activation(reference: str, name: str, config: dict[str, Any], tag: str | None) -> None:
    """OpenAI's weights, and those trained from them, need QuickGELU; another GELU loads and is quietly wrong."""
    sibling = _sibling(name)
    if tag is None or sibling not in open_clip.list_models():
        return
    published = open_clip.get_pretrained_cfg(name, tag) or open_clip.get_pretrained_cfg(sibling, tag)
    wanted = bool(published.get("quick_gelu", False))
    if wanted != bool(config.get("quick_gelu", False)):
        raise UserError(
            f"{reference}: the weights '{tag}' were trained {'with' if wanted else 'without'} QuickGELU, and {name} "
            f"is {'without' if wanted else 'with'} it. Use open_clip:{sibling}/..."
        )


def _sibling(name: str) -> str:
    """The same architecture with the other GELU."""
    return name.removesuffix("-quickgelu") if name.endswith("-quickgelu") else f"{name}-quickgelu"


def _tags(name: str) -> list[str]:
    return open_clip.list_pretrained_tags_by_model(name)


def _list(tags: list[str]) -> str:
    return f"the tags {', '.join(tags)}" if tags else "no published tags"
