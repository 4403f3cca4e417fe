"""timm's models from the files that timm itself writes, never a download."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_model_data_config

from onestage.spec import UserError
from onestage.teachers import LibraryTeacher, load
from onestage.teachers.resize import to_size
from onestage.teachers.tower_timm import TimmTower
from published import picture, pixels_of, random_timm

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "class token": ("vit_small_patch16_224", SMALL | {"num_classes": 7}),
    "registers": ("vit_small_patch14_reg4_dinov2", SMALL | {"num_classes": 0}),
    "eva": ("eva02_tiny_patch14_224", SMALL | {"num_classes": 5}),
    "dinov3": ("vit_small_patch16_dinov3", SMALL | {"num_classes": 0}),
    "attention": ("vit_base_patch16_siglip_224", SMALL | {"num_classes": 0}),
    "mean then norm": ("vit_small_patch16_224", SMALL | {"global_pool": "avg", "num_classes": 7}),
    "beit": ("beit_base_patch16_224", SMALL | {"num_classes": 3}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 24), "num_classes": 3}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}),
    "resnet": ("resnet10t", {"num_classes": 3}),
}
MAPS = {"convnext": (7, 7), "swin": (7, 7), "resnet": (6, 6)}
PREFIX = {"class token": 1, "registers": 5, "eva": 1, "dinov3": 5, "attention": 0, "mean then norm": 1, "beit": 1}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One published folder for each kind of model."""
    root = tmp_path_factory.mktemp("timm")
    return {kind: random_timm(root / kind.replace(" ", "_"), *given) for kind, given in MODELS.items()}


def opened(folder: Path) -> Any:
    """The model by timm alone."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_rows_are_timms_features(kind: str, folders: dict[str, Path]) -> None:
    teacher, model = load(f"timm:local-dir:{folders[kind]}"), opened(folders[kind])
    image = picture(teacher.size)
    images = create_transform(**resolve_model_data_config(model))(image)[None]
    features = model.forward_features(images)
    answer = teacher.tokens(pixels_of(image), "raw")
    torch.testing.assert_close(answer.pooled, model.forward_head(features, pre_logits=True), atol=1e-5, rtol=1e-5)
    if kind in MAPS:
        cells = features if kind == "swin" else features.permute(0, 2, 3, 1)
        expected = cells.reshape(1, -1, cells.shape[-1])
    else:
        expected = model.fc_norm(features[:, PREFIX[kind] :])
    torch.testing.assert_close(answer.rows, expected, atol=1e-5, rtol=1e-5)
    # DINOv3 takes any size, so what its published configuration says is what it gets.
    assert teacher.grid == MAPS.get(kind, {"dinov3": (32, 32)}.get(kind, (4, 4)))
    assert answer.rows.shape[1:] == (teacher.grid[0] * teacher.grid[1], teacher.width("raw"))


@pytest.mark.parametrize("kind", ["class token", "convnext"])
def test_there_is_no_joint_space(kind: str, folders: dict[str, Path]) -> None:
    teacher = load(f"timm:local-dir:{folders[kind]}")
    assert not (teacher.has_text or teacher.has_joint)
    with pytest.raises(UserError, match="the same weights as open_clip: or hf: have them"):
        teacher.width("joint")
    with pytest.raises(UserError, match="no text tower"):
        teacher.text(["a seven"])


@pytest.mark.parametrize("kind", ["class token", "convnext"])
def test_preprocessing_is_timms(kind: str, folders: dict[str, Path]) -> None:
    """On a photograph. timm resizes through Pillow, which rounds to 1/255 and clips between its two passes."""
    teacher, model = load(f"timm:local-dir:{folders[kind]}"), opened(folders[kind])
    assert isinstance(teacher, LibraryTeacher) and teacher.statistics == "own"
    image = Image.fromarray(load_sample_image("flower.jpg")[:300, :300])
    expected = create_transform(**resolve_model_data_config(model) | {"crop_pct": 1.0})(image)[None]
    given = (to_size(pixels_of(image), teacher.size, teacher.interpolation) - teacher.mean) / teacher.std
    away = ((given - expected).abs() * teacher.std).flatten()
    assert away.quantile(0.999).item() < 1.5 / 255 and away.mean().item() < 0.5 / 255


@pytest.mark.parametrize("kind", ["class token", "eva", "mean then norm", "convnext", "resnet", "swin"])
@torch.no_grad()
def test_categories_are_timms_scores(kind: str, folders: dict[str, Path]) -> None:
    teacher, model = load(f"timm:local-dir:{folders[kind]}"), opened(folders[kind])
    image = picture(teacher.size)
    expected = model(create_transform(**resolve_model_data_config(model))(image)[None])
    scores = teacher.tokens(pixels_of(image), "categories")
    torch.testing.assert_close(scores.pooled, expected, atol=1e-4, rtol=1e-4)
    assert teacher.width("categories") == expected.shape[1] and scores.rows.shape == (1, 1, expected.shape[1])
    named = kind == "swin"  # of a thousand classes, which are ImageNet's
    assert teacher.categories.names[:1] == (("n01440764",) if named else ())


def test_a_model_without_a_classifier_has_no_categories(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="it has no category head"):
        load(f"timm:local-dir:{folders['registers']}").width("categories")


@torch.no_grad()
def test_by_name_and_file(tmp_path: Path) -> None:
    """With a classifier of any number of classes, or none; statistics are those of the name's own weights."""
    for classes, name in ((1000, "test_vit.r160_in1k"), (5, "test_vit"), (0, "test_vit")):
        torch.manual_seed(classes)
        model = timm.create_model(name, num_classes=classes).eval()
        file = tmp_path / f"{classes}.safetensors"
        save_file(model.state_dict(), file)
        teacher = load(f"timm:{name}@{file}")
        pixels = pixels_of(picture(160))
        normed = (pixels - torch.tensor([0.5] * 3).view(1, 3, 1, 1)) / 0.5
        torch.testing.assert_close(
            teacher.tokens(pixels, "raw").pooled, model.forward_features(normed)[:, 0], atol=1e-5, rtol=1e-5
        )
        assert (teacher.size, teacher.statistics, teacher.licence) == (160, "half", "apache-2.0")


def test_partial_and_foreign_files(folders: dict[str, Path], tmp_path: Path) -> None:
    """timm itself would load what fits of a file whose number of classes differs."""
    weights = timm.create_model("test_vit").state_dict()
    lean = {key: value for key, value in weights.items() if not key.startswith("blocks.1.")}
    save_file(lean, tmp_path / "lean.safetensors")
    save_file({key: value for key, value in lean.items() if "head" not in key}, tmp_path / "headless.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\0" * 40)
    (tmp_path / "old.pth").write_bytes(b"a pickle")
    for name in ("pickled", "partial", "bare"):
        shutil.copytree(folders["class token"], tmp_path / name)
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    kept = load_file(tmp_path / "partial" / "model.safetensors")
    kept.pop("norm.weight")
    save_file(kept, tmp_path / "partial" / "model.safetensors")
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "clip"}')
    for reference, said in {
        f"timm:test_vit@{tmp_path}/lean.safetensors": r"timm cannot load it.*Missing key.*blocks.1",
        f"timm:test_vit@{tmp_path}/headless.safetensors": r"timm cannot load it.*Missing key.*blocks.1",
        f"timm:test_vit@{tmp_path}/torn.safetensors": "torn.safetensors cannot be read",
        f"timm:test_vit@{tmp_path}/old.pth": r"old.pth is a pickle.*\n.*save_file",
        f"timm:test_vit@{tmp_path}/gone.safetensors": "there is no file",
        "timm:test_vjt@x.safetensors": "timm has no model 'test_vjt'; did you mean 'test_vit'",
        "timm:test_vit.no_tag@x.safetensors": "no_tag",
        f"timm:local-dir:{tmp_path}/pickled": "pytorch_model.bin is a pickle",
        f"timm:local-dir:{tmp_path}/partial": r"timm cannot load it.*Missing key.*norm.weight",
        f"timm:local-dir:{tmp_path}/bare": "names no architecture",
        f"timm:local-dir:{tmp_path}": "holds no config.json",
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            load(reference)
        assert str(caught.value).startswith(reference)


def test_a_name_goes_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the hub's own cache, laid out as its client lays it out: nothing is fetched."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"model.safetensors of timm/test_vit.r160_in1k is neither in the cache"):
        load("timm:test_vit.r160_in1k")
    commit = "1" * 40
    cache = tmp_path / "models--timm--test_vit.r160_in1k"
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    model = timm.create_model("test_vit").eval()
    save_file(model.state_dict(), cache / "snapshots" / commit / "model.safetensors")
    teacher = load("timm:test_vit.r160_in1k")
    assert isinstance(teacher, LibraryTeacher)
    assert teacher.tower.state_dict()["trunk.norm.weight"].equal(model.state_dict()["norm.weight"])


def test_models_without_a_grid_of_cells_are_refused(tmp_path: Path) -> None:
    """And those whose pooled row is of another width than their cells."""
    for name, options, said in (
        ("vgg11", {}, "VGG: its pooled row .1, 4096. is not as wide as a cell, 512"),
        ("xcit_nano_12_p16_224", {"embed_dim": 16, "depth": 1, "num_heads": 2}, "no grid of cells"),
    ):
        with torch.device("meta"):
            trunk: Any = timm.create_model(name, num_classes=0, **options)
        with pytest.raises(UserError, match=said):
            TimmTower(trunk, 224, None, None)
