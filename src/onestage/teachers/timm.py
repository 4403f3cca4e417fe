"""timm's models by name, by name and file, or from a published folder: rows without texts, and scores of categories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError, safe_open
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from onestage.spec import UserError, suggest
from onestage.teachers.category import Classifier
from onestage.teachers.files import licence_in, licence_of, need_safetensors, one_line, read_json, weights_in
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.tower import Pixels
from onestage.teachers.tower_timm import TimmTower

PREFIX = "timm:"
PREFERRED = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""In the order in which timm chooses among them."""


def load_timm(reference: str, device: torch.device) -> LibraryTeacher:
    """A timm model: `timm:NAME`, `timm:NAME@FILE` or `timm:local-dir:DIR`.

    Raises:
        UserError: when it is not there, lacks weights, is stored as a pickle, or gives no dense rows.
    """
    rest = reference.removeprefix(PREFIX)
    if rest.startswith("local-dir:"):
        model, licence = _from_folder(reference, Path(rest.removeprefix("local-dir:")))
    else:
        model, licence = _by_name(reference, rest)
    categories = _classifier(model)
    model.reset_classifier(0)
    pixels = _pixels(reference, model)
    try:
        tower = TimmTower(model.eval(), pixels.size, None, None)
    except UserError as error:
        raise UserError(f"{reference}: {error}") from None
    return LibraryTeacher(reference, tower, pixels, None, 1.0, licence, device, categories)


def _classifier(model: Any) -> Classifier | None:
    """The linear layer that a model ends in, and the names of its categories where timm knows them; None for a model
    without one, or with two."""
    layer = model.get_classifier()
    if not isinstance(layer, nn.Linear):
        return None
    names, known = model.pretrained_cfg.get("label_names"), infer_imagenet_subset(model)
    if not names and known is not None:
        names = ImageNetInfo(known).label_names()
    return Classifier(layer, tuple(names or ()))


def _from_folder(reference: str, folder: Path) -> tuple[Any, str]:
    if not (folder / "config.json").is_file():
        raise UserError(f"{reference}: {folder} holds no config.json")
    weights_in(reference, folder, PREFERRED)
    architecture = read_json(folder / "config.json").get("architecture")
    if architecture is None:
        raise UserError(f"{reference}: {folder / 'config.json'} is not one of timm's (it names no architecture)")
    return _create(reference, f"local-dir:{folder}", {}, {}), licence_in(folder)


def _by_name(reference: str, rest: str) -> tuple[Any, str]:
    name, _, given = rest.partition("@")
    if name.split(".")[0] not in timm.list_models():
        raise UserError(f"{reference}: timm has no model '{name}'{suggest(name, timm.list_models())}")
    try:
        published = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(f"{reference}: {one_line(error)}") from None
    assert published is not None, "timm knows the name"
    if given:
        file, licence = need_safetensors(reference, Path(given)), licence_in(Path(given).parent)
    else:
        file, licence = _download(reference, published), licence_of(published.hf_hub_id or "")
    classes = _classes(reference, file, published.classifier)
    # The number of classes that the file itself has: with any other, timm loads what fits and says nothing.
    overlay = {"file": str(file), "num_classes": classes, "custom_load": False, "label_offset": 0}
    return _create(reference, name, overlay, {"num_classes": classes}), published.license or licence


def _create(reference: str, name: str, overlay: dict[str, Any], options: dict[str, Any]) -> Any:
    try:
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except Exception as error:  # timm raises many kinds for a wrong file or shape
        raise UserError(f"{reference}: timm cannot load it: {one_line(error)}") from None


def _download(reference: str, published: Any) -> Path:
    """The weights of a name, through the hub's own client (its cache first)."""
    repository, name = published.hf_hub_id, published.hf_hub_filename or PREFERRED[0]
    if not repository or not name.endswith(".safetensors") or published.custom_load:
        raise UserError(f"{reference}: its weights are not published as safetensors; use timm:NAME@FILE")
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # the hub raises many kinds
        raise UserError(
            f"{reference}: {name} of {repository} is neither in the cache nor to be had ({one_line(error)}). "
            "Fetch it where there is a network, and give the file: timm:NAME@FILE."
        ) from None


def _classes(reference: str, file: Path, classifier: str | tuple[str, ...] | None) -> int:
    """How many classes the classifier in a file tells apart; 0 where there is none."""
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    try:
        with safe_open(file, framework="pt") as weights:
            held = set(weights.keys())
            for key in (f"{name}.weight" for name in names):
                if key in held:
                    return int(weights.get_slice(key).get_shape()[0])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{reference}: {file} cannot be read ({one_line(error)})") from None
    return 0


def _pixels(reference: str, model: Any) -> Pixels:
    """How it wants its images, from timm's own configuration."""
    config = resolve_model_data_config(model)
    _, height, width = config["input_size"]
    if height != width:
        raise UserError(f"{reference}: it wants images of {width}x{height} pixels; only squares are known here")
    if config["interpolation"] not in {"bicubic", "bilinear"}:
        raise UserError(f"{reference}: its images are resized by '{config['interpolation']}', which is not known here")
    return Pixels(height, config["interpolation"], tuple(config["mean"]), tuple(config["std"]))
