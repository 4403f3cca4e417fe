"""transformers' text towers, in transformers' own files: CLIP's, MetaCLIP 2's and SigLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    MetaClip2TextModelWithProjection,
    SiglipTextModel,
)

from onestage.encoders import ClipText
from onestage.spec import UserError
from onestage.teachers.files import one_line
from onestage.teachers.hf import quiet
from onestage.teachers.text import FOLDER, LibraryText, TextTower, freeze

PROJECTED: dict[str, Any] = {
    "clip": CLIPTextModelWithProjection,
    "clip_text_model": CLIPTextModelWithProjection,
    "metaclip_2": MetaClip2TextModelWithProjection,
    "metaclip_2_text_model": MetaClip2TextModelWithProjection,
}
"""Text towers with a projection behind them, by the kind of the whole model and of the tower alone."""


@final
class HfWords(TextTower):
    """A text tower of transformers with its own tokenizer. Texts are padded to its full length, as SigLIP learned."""

    def __init__(self, tower: Any, tokenizer: Any) -> None:
        self.spec: ClipText | LibraryText = LibraryText(library="transformers")
        self.tower, self.tokenizer = tower, tokenizer

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        words = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.tower.config.max_position_embeddings,
            return_tensors="pt",
        )
        answer = self.tower(**words.to(next(self.tower.parameters()).device))
        return answer.pooler_output if isinstance(self.tower, SiglipTextModel) else answer.text_embeds

    def parts(self) -> tuple[nn.Module, ...]:
        return (self.tower,)

    def save(self, folder: Path) -> None:
        own = folder / FOLDER
        with quiet():
            self.tower.save_pretrained(own)
        self.tokenizer.save_pretrained(own)


def text_of(reference: str, model: Any, place: str, device: torch.device) -> HfWords:
    """The text tower of a model of transformers, and its tokenizer; the weights are the model's own.

    Raises:
        UserError: when its tokenizer is not there.
    """
    tokenizer = _tokenizer(reference, place)
    if model.config.model_type == "siglip":
        return HfWords(freeze(model.text_model, device), tokenizer)
    config = model.config.text_config
    config.projection_dim = model.config.projection_dim
    with torch.device("meta"):
        tower = PROJECTED[model.config.model_type](config)
    tower.text_model, tower.text_projection = model.text_model, model.text_projection
    return HfWords(freeze(tower, device), tokenizer)


def open_text(folder: Path, device: torch.device) -> HfWords:
    """The text tower that a bundle keeps in `folder`.

    Raises:
        UserError: when its files are missing or damaged.
    """
    own = folder / FOLDER
    try:
        with quiet():
            opens = PROJECTED.get(AutoConfig.from_pretrained(own).model_type, SiglipTextModel)
            tower, report = opens.from_pretrained(own, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{own}: the text tower cannot be opened ({one_line(error)})") from None
    if report["missing_keys"]:
        raise UserError(f"{own}: the text tower lacks {len(report['missing_keys'])} of its tensors")
    return HfWords(freeze(tower, device), _tokenizer(str(own), str(own)))


def _tokenizer(reference: str, place: str) -> Any:
    """The tokenizer that transformers finds there; where it finds no file it would make one up."""
    folder = Path(place)
    if folder.is_dir() and not [*folder.glob("tokenizer*.json"), *folder.glob("vocab*"), *folder.glob("*.model")]:
        raise UserError(_untold(reference, place, "there is no file of it"))
    try:
        return AutoTokenizer.from_pretrained(place)
    except Exception as error:  # transformers, tokenizers and the hub raise many kinds
        raise UserError(_untold(reference, place, one_line(error))) from None


def _untold(reference: str, place: str, why: str) -> str:
    return (
        f"{reference}: its tokenizer is not in {place}, so no text can be read ({why}). Put its files there "
        "(tokenizer.json, tokenizer_config.json); images need none of it."
    )
