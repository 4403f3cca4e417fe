"""Small models with random weights in the very files in which the libraries publish theirs, and a picture for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor, nn

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
NATIVE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": TEXT,
}
TIMM = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "eva02_tiny_patch14_224",
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": None,
    },
    "text_cfg": TEXT,
    "custom_text": True,
}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
WORDS = ["a red seven", "a small blue three left of a nine", "a photo of a dog"]


def registered(folder: Path, name: str, config: Mapping[str, Any]) -> str:
    """Make a configuration known to open_clip under a name."""
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def random_model(name: str) -> nn.Module:
    """A registered model with random weights, positions and scale included."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def saved(folder: Path, config: Mapping[str, Any], pixels: Mapping[str, Any] = PIXELS) -> Path:
    """A folder as open_clip publishes it: configuration, preprocessing and weights."""
    folder.mkdir(parents=True)
    model = random_model(registered(folder, f"onestage-{folder.parent.name}-{folder.name}", config))
    size = config["vision_cfg"]["image_size"]
    preprocess = {"size": [size, size], **pixels}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder


def random_timm(folder: Path, name: str, options: Mapping[str, Any]) -> Path:
    """A folder as timm publishes it, of an architecture made small by its own options."""
    torch.manual_seed(1)
    model = timm.create_model(name, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    data = {"mean": PIXELS["mean"], "std": PIXELS["std"], "crop_pct": 1.0}
    save_for_hf(model, str(folder), safe_serialization=True, data_config=data)
    return folder


def picture(size: int) -> Image.Image:
    """A smooth picture, so that two ways of resizing agree."""
    small = np.random.default_rng(3).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)


def pixels_of(image: Image.Image) -> Tensor:
    """(1, 3, side, side) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255


def published(folder: Path) -> tuple[Any, Any]:
    """The model and its preprocessing, by open_clip alone."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return model.eval(), preprocess


def tokenizer(end: str = "</s>") -> Any:
    """A tokenizer of transformers that learned its words here: byte pairs, an end token, padded by it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made: Any = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(WORDS, trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", end]))
    made.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token=end, pad_token=end)
