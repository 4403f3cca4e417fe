"""open_clip's text towers: CLIP's as ours, every other one (SigLIP, CoCa, transformers') in open_clip's own files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import open_clip
import torch
from jaxtyping import Float, Int
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from onestage.encoders import ClipText
from onestage.spec import UserError
from onestage.storage import read_safetensors, write_safetensors
from onestage.teachers.files import one_line, read_json
from onestage.teachers.text import FOLDER, WEIGHTS, ClipWords, LibraryText, TextTower, clip_words, freeze

CONFIG = "open_clip_config.json"
SMALLEST = {"image_size": 1, "patch_size": 1, "width": 1, "head_width": 1, "layers": 1}
"""open_clip builds a text tower only beside an image tower."""


@final
class OpenClipWords(TextTower):
    """A text tower that open_clip builds, with the tokenizer that open_clip chooses for it."""

    def __init__(self, config: dict[str, Any], tower: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> None:
        self.spec: ClipText | LibraryText = LibraryText(library="open_clip")
        self.config, self.tower, self.tokenizer = config, tower, tokenizer

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        ids: Int[Tensor, "b t"] = self.tokenizer(list(texts))
        answer = self.tower(ids.to(next(self.tower.parameters()).device))
        return answer[0] if isinstance(answer, tuple) else answer  # with `output_tokens` it gives its rows too

    def parts(self) -> tuple[nn.Module, ...]:
        return (self.tower,)

    def save(self, folder: Path) -> None:
        own = folder / FOLDER
        own.mkdir(parents=True, exist_ok=True)
        write_safetensors(own / WEIGHTS, dict(self.tower.state_dict()))
        if isinstance(self.tokenizer, HFTokenizer):
            self.tokenizer.save_pretrained(str(own))
        if isinstance(self.tower, HFTextEncoder):
            own_config: Any = self.tower.config
            own_config.save_pretrained(str(own))
        (own / CONFIG).write_text(json.dumps({"model_cfg": self.config}, indent=1) + "\n")


def text_of(reference: str, model: nn.Module, name: str, device: torch.device) -> TextTower:
    """The text tower of an open_clip model, and its tokenizer.

    Args:
        name: what open_clip knows it by: an architecture, or `local-dir:DIR`.

    Raises:
        UserError: when its tokenizer is not there.
    """
    whole = open_clip.get_model_config(name) or {}
    config = {key: whole[key] for key in ("embed_dim", "quick_gelu", "text_cfg") if key in whole}
    # A native CLIP keeps its text tower's parts at the top level; the others have it as a module.
    tower: nn.Module | None = getattr(model, "text", None)
    if tower is None:
        tower = _build(config)
        state = open_clip.model.convert_to_custom_text_state_dict(dict(model.state_dict()))
        tower.load_state_dict({key[5:]: value for key, value in state.items() if key.startswith("text.")})
    wanted = _as_clip(config)
    if wanted is not None:
        return clip_words(wanted, {f"tower.{key}": value for key, value in tower.state_dict().items()}, device)
    return OpenClipWords(config, freeze(tower, device), _tokenizer(reference, name))


def open_text(folder: Path, device: torch.device) -> ClipWords | OpenClipWords:
    """The text tower that a bundle keeps in `folder`.

    Raises:
        UserError: when its files are missing or damaged.
    """
    own = folder / FOLDER
    try:
        config = read_json(own / CONFIG)["model_cfg"]
        if config["text_cfg"].get("hf_model_name"):
            config["text_cfg"] |= {"hf_model_name": str(own), "hf_model_pretrained": False}
        tower = _build(config)
        tower.load_state_dict(read_safetensors(own / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UserError(f"{own}: the text tower cannot be opened ({one_line(error)})") from None
    return OpenClipWords(config, freeze(tower, device), _tokenizer(str(own), f"local-dir:{own}"))


def _build(config: dict[str, Any]) -> nn.Module:
    """A text tower as open_clip builds it, with random weights."""
    return open_clip.CustomTextCLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=SMALLEST,  # pyright: ignore[reportArgumentType] - open_clip takes plain values too
        text_cfg=config["text_cfg"],
        quick_gelu=config.get("quick_gelu", False),
    ).text


def _as_clip(config: dict[str, Any]) -> ClipText | None:
    """CLIP's text tower with these sizes, where nothing but sizes sets it apart."""
    given = open_clip.CLIPTextCfg(**config["text_cfg"])
    wanted = ClipText(
        joint=config["embed_dim"],
        width=given.width,
        depth=given.layers,
        heads=given.heads,
        mlp_ratio=given.mlp_ratio,
        context=given.context_length,
        vocabulary=given.vocab_size,
        activation="quick_gelu" if config.get("quick_gelu", False) else "gelu",
    )
    plain = open_clip.CLIPTextCfg(
        width=given.width,
        layers=given.layers,
        heads=given.heads,
        mlp_ratio=given.mlp_ratio,
        context_length=given.context_length,
        vocab_size=given.vocab_size,
    )
    return wanted if given == plain else None


def _tokenizer(reference: str, name: str) -> Callable[[list[str]], Tensor]:
    try:
        return open_clip.get_tokenizer(name)
    except ImportError:
        raise UserError(f"{reference}: its texts are read by transformers: pip install 'onestage[hf]'") from None
    except Exception as error:  # transformers and the hub raise many kinds
        raise UserError(
            f"{reference}: its tokenizer is not there, so no text can be read ({one_line(error)}). Put its files "
            "(tokenizer.json, tokenizer_config.json) beside open_clip_config.json and the weights, and use "
            "open_clip:local-dir:DIR; images need none of it."
        ) from None
