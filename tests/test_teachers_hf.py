"""transformers' models from the folders that transformers itself writes, never a download."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image

from onestage import api
from onestage.spec import UserError
from onestage.teachers import LibraryTeacher, load
from onestage.teachers.hf import quiet
from onestage.teachers.resize import to_size
from published import WORDS, picture, pixels_of, tokenizer

SIDE, GRID = 32, (4, 4)
VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
LETTERS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = LETTERS | {"vocab_size": 80, "max_position_embeddings": 12, "eos_token_id": 1, "bos_token_id": 0}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}


class Made(NamedTuple):
    """A family: its configuration and how its images are prepared."""

    model: Callable[[], Any]
    processor: Callable[[], Any]
    texts: bool


FAMILIES = {
    "clip": Made(
        lambda: hf.CLIPModel(hf.CLIPConfig(text_config=TEXT, vision_config=VIT, projection_dim=24)),
        lambda: hf.CLIPImageProcessor(**CROPPED),
        True,
    ),
    "metaclip_2": Made(
        lambda: hf.MetaClip2Model(hf.MetaClip2Config(text_config=TEXT, vision_config=VIT, projection_dim=24)),
        lambda: hf.CLIPImageProcessor(**CROPPED),
        True,
    ),
    "siglip": Made(
        lambda: hf.SiglipModel(hf.SiglipConfig(text_config=TEXT | {"projection_size": 32}, vision_config=VIT)),
        lambda: hf.SiglipImageProcessor(**SQUARE),
        True,
    ),
    "dinov2": Made(
        lambda: hf.Dinov2Model(hf.Dinov2Config(**VIT | {"image_size": 40})),
        lambda: hf.BitImageProcessor(**CROPPED, **IMAGENET),
        False,
    ),
    "dinov2_with_registers": Made(
        lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**VIT, num_register_tokens=3)),
        lambda: hf.BitImageProcessor(**CROPPED, **IMAGENET),
        False,
    ),
    "dinov3_vit": Made(
        lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT, num_register_tokens=3)),
        lambda: hf.DINOv3ViTImageProcessor(**SQUARE),
        False,
    ),
}
JOINT = [name for name, made in FAMILIES.items() if made.texts]
REGISTERS = {"dinov2": 0, "dinov2_with_registers": 3, "dinov3_vit": 3}


def saved(folder: Path, kind: str) -> Path:
    """A folder as transformers writes it, with random weights, its tokenizer and a model card."""
    torch.manual_seed(2)
    model = FAMILIES[kind].model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    with quiet():
        model.save_pretrained(folder)
    FAMILIES[kind].processor().save_pretrained(folder)
    if FAMILIES[kind].texts:
        tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\ntags: [vision]\n---\n# A model\n")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One published folder for each family."""
    root = tmp_path_factory.mktemp("hf")
    return {kind: saved(root / kind, kind) for kind in FAMILIES}


def opened(folder: Path) -> Any:
    """The model by transformers alone."""
    with quiet():
        return hf.AutoModel.from_pretrained(folder).eval()


def photograph(side: int) -> Image.Image:
    """A square of a real photograph."""
    return Image.fromarray(load_sample_image("china.jpg")[40 : 40 + side, 100 : 100 + side])


@pytest.mark.parametrize("kind", JOINT)
@torch.no_grad()
def test_the_pooled_joint_row_is_get_image_features(kind: str, folders: dict[str, Path]) -> None:
    teacher, model = load(f"hf:{folders[kind]}"), opened(folders[kind])
    images = FAMILIES[kind].processor()(picture(SIDE), return_tensors="pt")
    answer = teacher.tokens(pixels_of(picture(SIDE)), "joint")
    expected = model.get_image_features(**images).pooler_output
    torch.testing.assert_close(answer.pooled, expected, atol=1e-5, rtol=1e-5)
    assert answer.grid == GRID and answer.rows.shape == (1, 16, teacher.width("joint"))
    assert teacher.scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)


@pytest.mark.parametrize("kind", JOINT)
@torch.no_grad()
def test_dense_joint_rows(kind: str, folders: dict[str, Path]) -> None:
    """CLIP projects each normed row as its class token; SigLIP pools each row as a sequence of equal rows."""
    teacher, model = load(f"hf:{folders[kind]}"), opened(folders[kind])
    vision = model.vision_model
    last = vision(**FAMILIES[kind].processor()(picture(SIDE), return_tensors="pt")).last_hidden_state[0]
    pixels = pixels_of(picture(SIDE))
    if kind == "siglip":
        expected = torch.stack([vision.head(row.expand(1, 9, -1))[0] for row in last])
        raw = last
    else:
        raw = vision.post_layernorm(last)[1:]
        expected = torch.stack([model.visual_projection(row) for row in raw])
    torch.testing.assert_close(teacher.tokens(pixels, "joint").rows[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(teacher.tokens(pixels, "raw").rows[0], raw, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", REGISTERS)
@torch.no_grad()
def test_raw_rows_of_dino(kind: str, folders: dict[str, Path]) -> None:
    teacher, model = load(f"hf:{folders[kind]}"), opened(folders[kind])
    last = model(**FAMILIES[kind].processor()(picture(SIDE), return_tensors="pt")).last_hidden_state
    answer = teacher.tokens(pixels_of(picture(SIDE)), "raw")
    torch.testing.assert_close(answer.pooled, last[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.rows, last[:, 1 + REGISTERS[kind] :], atol=1e-5, rtol=1e-5)
    assert answer.grid == GRID and not (teacher.has_text or teacher.has_joint)
    with pytest.raises(UserError, match="never saw a text"):
        teacher.tokens(pixels_of(picture(SIDE)), "joint")
    with pytest.raises(UserError, match="no text tower"):
        teacher.text(WORDS)


@pytest.mark.parametrize("kind", FAMILIES)
def test_preprocessing_is_the_processors(kind: str, folders: dict[str, Path]) -> None:
    """Statistics, size and interpolation, on a photograph; the processor rounds to 1/255 in between."""
    teacher = load(f"hf:{folders[kind]}")
    assert isinstance(teacher, LibraryTeacher) and teacher.size == SIDE
    image = photograph(100)
    expected = hf.AutoImageProcessor.from_pretrained(folders[kind])(image, return_tensors="pt")["pixel_values"]
    given = (to_size(pixels_of(image), teacher.size, teacher.interpolation) - teacher.mean) / teacher.std
    assert ((given - expected).abs() * teacher.std).max().item() < 1.01 / 255
    assert teacher.interpolation == ("bilinear" if kind == "dinov3_vit" else "bicubic")
    known = {"clip": "clip", "metaclip_2": "clip", "siglip": "half"}
    assert teacher.statistics == known.get(kind, "imagenet") and teacher.licence == "cc-by-4.0"


@pytest.mark.parametrize("kind", JOINT)
@torch.no_grad()
def test_texts_are_get_text_features(kind: str, folders: dict[str, Path]) -> None:
    teacher, model = load(f"hf:{folders[kind]}"), opened(folders[kind])
    words = hf.AutoTokenizer.from_pretrained(folders[kind])(
        WORDS, padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    )
    expected = model.get_text_features(**words).pooler_output
    assert isinstance(teacher, LibraryTeacher) and len(teacher.parts()) == 1, "texts are opened when first asked for"
    torch.testing.assert_close(teacher.text(WORDS), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape[1] == teacher.width("joint") and not torch.allclose(expected[0], expected[1], atol=1e-3)
    modules = [module for part in teacher.parts() for module in part.modules()]
    assert len(teacher.parts()) == 2 and not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_partial_and_foreign_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    """Each says what is missing."""

    def broken(name: str, kind: str = "clip") -> Path:
        shutil.copytree(folders[kind], tmp_path / name)
        return tmp_path / name

    weights = load_file(folders["clip"] / "model.safetensors")
    lean = {key: value for key, value in weights.items() if "post_layernorm" not in key}
    save_file(lean, broken("partial") / "model.safetensors", metadata={"format": "pt"})
    wide = weights | {"visual_projection.weight": torch.zeros(8, 32)}
    save_file(wide, broken("shapes") / "model.safetensors", metadata={"format": "pt"})
    (broken("empty") / "model.safetensors").unlink()
    pickled = broken("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (broken("torn") / "model.safetensors").write_bytes(b"\0" * 40)
    (broken("unprepared") / "preprocessor_config.json").unlink()
    (broken("unnamed") / "config.json").unlink()
    for name, change in {"bert": {"model_type": "bert"}, "naflex": {"model_type": "siglip2"}}.items():
        config = json.loads((folders["clip"] / "config.json").read_text()) | change
        (broken(name) / "config.json").write_text(json.dumps(config))
    for name, said in {
        "partial": r"lacks 2 tensors.*post_layernorm",
        "shapes": r"lacks 1 tensors.*other shapes: visual_projection.weight",
        "empty": "holds no weights .expected model.safetensors",
        "pickled": r"pytorch_model.bin is a pickle.*\n.*save_file",
        "torn": "transformers cannot load it",
        "unprepared": "holds no preprocessor_config.json",
        "unnamed": "holds no config.json",
        "bert": "models of kind 'bert' are not known here",
        "naflex": "no fixed size: use a SigLIP 2 with a size in its name",
        "nowhere": "there is no folder",
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            load(f"hf:{tmp_path / name}")
        assert str(caught.value).startswith(f"hf:{tmp_path / name}")


def test_a_missing_tokenizer_stops_texts_only(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["siglip"], tmp_path / "mute")
    for file in (tmp_path / "mute").glob("tokenizer*"):
        file.unlink()
    teacher = load(f"hf:{tmp_path / 'mute'}")
    assert teacher.tokens(pixels_of(picture(SIDE)), "joint").rows.shape == (1, 16, 32)
    with pytest.raises(UserError, match=r"its tokenizer is not in .*mute, so no text can be read.*tokenizer.json"):
        teacher.text(WORDS)


def test_a_name_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own hub code answers; offline it says so."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf:no-owner/no-model: transformers cannot load it: .*(offline|connect)"):
        load("hf:no-owner/no-model")


def test_without_transformers(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"transformers is not installed: pip install 'onestage.hf.'"):
        load(f"hf:{folders['clip']}")


def test_kinds_of_teachers_are_listed() -> None:
    listed = api.ls("teachers")
    for word in ("open_clip:local-dir:DIR", "timm:NAME@FILE", "hf:OWNER/NAME", "MetaCLIP 2", "raw, joint"):
        assert word in listed
