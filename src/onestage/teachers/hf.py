"""transformers' models by name or folder: CLIP, MetaCLIP 2, SigLIP and SigLIP 2, DINOv2, DINOv3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from onestage.spec import UserError
from onestage.teachers.files import licence_in, licence_of, one_line, weights_in
from onestage.teachers.library import LibraryTeacher
from onestage.teachers.tower import Pixels
from onestage.teachers.tower_hf import HfTower, Pooling

PREFIX = "hf:"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers."""


class Family(NamedTuple):
    """A kind of model: the class that opens it, and how it pools."""

    opens: Any
    pooling: Pooling


def load_hf(reference: str, device: torch.device) -> LibraryTeacher:
    """A model of transformers: `hf:NAME_OR_DIR`.

    Raises:
        UserError: when it is not there, of another kind, lacks files, or is stored as a pickle.
    """
    where = reference.removeprefix(PREFIX)
    folder = Path(where).expanduser()
    if folder.is_dir():
        _check_folder(reference, folder)
    elif where.count("/") != 1 or where.startswith((".", "/", "~")):
        raise UserError(f"{reference}: there is no folder {where}; expected hf:DIR, or hf:OWNER/NAME as on the hub")
    place = str(folder) if folder.is_dir() else where
    family, model = _model(reference, place)
    model.requires_grad_(False).eval()
    pixels = _pixels(reference, place, model.config, family.pooling)
    try:
        tower = HfTower(model, family.pooling, pixels.size)
    except UserError as error:
        raise UserError(f"{reference}: {error}") from None
    licence = licence_in(folder) if folder.is_dir() else licence_of(where)
    if tower.joint is None:
        return LibraryTeacher(reference, tower, pixels, None, 1.0, licence, device)
    from onestage.teachers.text_hf import text_of

    texts = partial(text_of, reference, model, place, device)
    return LibraryTeacher(reference, tower, pixels, texts, float(model.logit_scale.exp()), licence, device)


def _check_folder(reference: str, folder: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{reference}: {folder} holds no {name}")
    if not (folder / WEIGHTS[1]).is_file():
        weights_in(reference, folder, WEIGHTS[:1])


def _family(reference: str, kind: str) -> Family:
    import transformers as hf

    families = {
        "clip": Family(hf.CLIPModel, "class token"),
        "metaclip_2": Family(hf.MetaClip2Model, "class token"),
        "siglip": Family(hf.SiglipModel, "attention"),
        "dinov2": Family(hf.Dinov2Model, "class token, no texts"),
        "dinov2_with_registers": Family(hf.Dinov2WithRegistersModel, "class token, no texts"),
        "dinov3_vit": Family(hf.DINOv3ViTModel, "class token, no texts"),
    }
    if kind not in families:
        also = "; its images have no fixed size: use a SigLIP 2 with a size in its name" if kind == "siglip2" else ""
        raise UserError(f"{reference}: models of kind '{kind}' are not known here ({', '.join(families)}){also}")
    return families[kind]


def _model(reference: str, place: str) -> tuple[Family, Any]:
    try:
        from transformers import AutoConfig
    except ImportError:
        raise UserError(f"{reference}: transformers is not installed: pip install 'onestage[hf]'") from None
    try:
        with quiet():
            family = _family(reference, AutoConfig.from_pretrained(place).model_type)
            model, report = family.opens.from_pretrained(
                place,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                dtype=torch.float32,
            )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(f"{reference}: transformers cannot load it: {one_line(error)}") from None
    lacking = sorted([*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])])
    if lacking:
        shown = ", ".join(lacking[:3])
        raise UserError(
            f"{reference}: its file lacks {len(lacking)} tensors of the model, or has other shapes: {shown}"
        )
    return family, model


def _pixels(reference: str, place: str, config: Any, pooling: Pooling) -> Pixels:
    """How it wants its images, from its own processor; the side is the one its positions were learned for."""
    from transformers import AutoImageProcessor

    try:
        processor: Any = AutoImageProcessor.from_pretrained(place)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{reference}: its image processor cannot be read: {one_line(error)}") from None
    if pooling == "class token, no texts":
        size = processor.crop_size if processor.do_center_crop else processor.size
        side = size.height or size.shortest_edge
    else:
        side = config.vision_config.image_size
    interpolation = INTERPOLATIONS.get(int(processor.resample))
    if side is None or interpolation is None or not processor.do_rescale:
        raise UserError(f"{reference}: preprocessor_config.json prepares images in a way that is not known here")
    mean, std = ((0.0,) * 3, (1.0,) * 3)
    if processor.do_normalize:
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return Pixels(int(side), "bilinear" if interpolation == "bilinear" else "bicubic", mean, std)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars and its report of what fits: that is told in our own words."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
