"""open_clip models from a local folder or file as frozen models, never a download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from onestage import api, pretraining
from onestage.evaluation import class_weights
from onestage.spec import UserError
from onestage.teachers import OpenClipTeacher, load

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
MODELS = {"native": NATIVE, "native with quick GELU": NATIVE | {"quick_gelu": True, "custom_text": True}, "timm": TIMM}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
WORDS = ["a red seven", "a small blue three left of a nine", "a photo of a dog"]
LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}
PAIR = LEAN | {"models.text.width": "16", "models.text.depth": "1", "models.text.joint": "16"}


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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One published folder for each kind of model."""
    root = tmp_path_factory.mktemp("published")
    return {kind: saved(root / kind.replace(" ", "_"), config) for kind, config in MODELS.items()}


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


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_the_pooled_joint_row_is_encode_image(kind: str, folders: dict[str, Path]) -> None:
    model, preprocess = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    assert isinstance(teacher, OpenClipTeacher)
    image = picture(teacher.size)
    answer = teacher.tokens(pixels_of(image), "joint")
    torch.testing.assert_close(answer.pooled, model.encode_image(preprocess(image)[None]), atol=1e-5, rtol=1e-5)
    assert answer.grid == teacher.grid == {"timm": (16, 16)}.get(kind, (4, 4))
    assert answer.rows.shape == (1, answer.grid[0] * answer.grid[1], 24) and teacher.width("joint") == 24
    assert teacher.width("raw") == teacher.tokens(pixels_of(image), "raw").rows.shape[-1]
    assert answer.place.cell.tolist() == [list(range(answer.rows.shape[1]))]


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_images_of_another_size_are_brought_to_the_teachers(kind: str, folders: dict[str, Path]) -> None:
    model, preprocess = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    image = picture(teacher.size + 40)
    expected = model.encode_image(preprocess(image)[None])
    given = teacher.tokens(pixels_of(image), "joint").pooled
    assert functional.cosine_similarity(given, expected).item() > 0.9999  # Pillow rounds to eight bits in between


@torch.no_grad()
def test_dense_rows_of_a_native_tower(folders: dict[str, Path]) -> None:
    """Walked through by hand: every row is normed and projected as the class token is."""
    model, preprocess = published(folders["native"])
    visual, image = model.visual, picture(32)
    patches = visual.conv1(preprocess(image)[None]).flatten(2).transpose(1, 2)
    rows = torch.cat([visual.class_embedding.expand(1, 1, -1), patches], dim=1) + visual.positional_embedding
    raw = visual.ln_post(visual.transformer(visual.ln_pre(rows)))
    teacher = load(f"open_clip:local-dir:{folders['native']}")
    for space, expected in (("raw", raw), ("joint", raw @ visual.proj)):
        answer = teacher.tokens(pixels_of(image), space)
        torch.testing.assert_close(answer.pooled, expected[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(answer.rows, expected[:, 1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_dense_rows_of_a_timm_tower(folders: dict[str, Path]) -> None:
    model, preprocess = published(folders["timm"])
    image, trunk = picture(224), model.visual.trunk
    raw = trunk.forward_features(preprocess(image)[None])
    expected = torch.stack([trunk.head(trunk.fc_norm(row)) for row in raw[0]])[None]
    teacher = load(f"open_clip:local-dir:{folders['timm']}")
    answer = teacher.tokens(pixels_of(image), "joint")
    torch.testing.assert_close(torch.cat([answer.pooled[:, None], answer.rows], 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_texts_and_scale_are_the_models_own(kind: str, folders: dict[str, Path]) -> None:
    model, _ = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    words = open_clip.SimpleTokenizer(context_length=12)(WORDS)
    torch.testing.assert_close(teacher.text(WORDS), model.encode_text(words), atol=1e-5, rtol=1e-5)
    assert teacher.scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-6) != 1.0
    assert teacher.has_text and teacher.has_joint and teacher.statistics == "own"


def test_a_teacher_is_frozen(folders: dict[str, Path]) -> None:
    teacher = load(f"open_clip:local-dir:{folders['native']}")
    modules = [module for part in teacher.parts() for module in part.modules()]
    assert modules and not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert not teacher.tokens(torch.rand(1, 3, 32, 32, requires_grad=True), "joint").rows.requires_grad


def test_by_name_and_file(folders: dict[str, Path], tmp_path: Path) -> None:
    """The same weights, with open_clip's default statistics, which are CLIP's."""
    name = registered(tmp_path, "onestage-by-name", NATIVE)
    by_name = load(f"open_clip:{name}/{folders['native'] / 'open_clip_model.safetensors'}")
    by_folder = load(f"open_clip:local-dir:{folders['native']}")
    assert by_name.text(WORDS).equal(by_folder.text(WORDS))
    assert (by_name.statistics, by_folder.statistics) == ("clip", "own")
    image = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(by_name.tokens(image, "joint").pooled, by_folder.tokens(image, "joint").pooled)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "averaged native": (NATIVE | {"vision_cfg": NATIVE["vision_cfg"] | {"pool_type": "avg"}}, "class token"),
    "averaged timm": (TIMM | {"vision_cfg": TIMM["vision_cfg"] | {"timm_pool": "avg"}}, "class token"),
    "projected timm": (TIMM | {"vision_cfg": TIMM["vision_cfg"] | {"timm_proj": "linear"}}, "class token"),
    "texts seen both ways": (NATIVE | {"text_cfg": TEXT | {"no_causal_mask": True}}, "masks or pools"),
    "texts pooled first": (NATIVE | {"text_cfg": TEXT | {"pool_type": "first"}}, "masks or pools"),
    "another tokenizer": (NATIVE | {"text_cfg": TEXT | {"tokenizer_kwargs": {"clean": "lower"}}}, "tokenizer"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    config, reason = REFUSED[kind]
    folder = saved(tmp_path / kind.replace(" ", "_"), config)
    with pytest.raises(UserError, match=reason) as caught:
        load(f"open_clip:local-dir:{folder}")
    assert str(folder) in str(caught.value)


def test_a_text_tower_from_elsewhere_is_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What open_clip builds where `hf_model_name` is set is no TextTransformer."""

    def foreign(name: str, pretrained: str | None, device: str) -> tuple[nn.Module, None]:
        model = open_clip.create_model(name)
        model.text = nn.Embedding(4, 4)
        return model, None

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", foreign)
    with pytest.raises(UserError, match="text towers of kind Embedding are not supported"):
        load(f"open_clip:local-dir:{folders['native with quick GELU']}")


def test_what_is_not_there(folders: dict[str, Path], tmp_path: Path) -> None:
    weights = folders["native"] / "open_clip_model.safetensors"
    (tmp_path / "open_clip_config.json").write_text("{}")
    for reference, said in {
        "open_clip:ViT-B-32/openai": "'openai' is not a file",
        "open_clip:ViT-B-32": "expected open_clip:NAME/FILE",
        f"open_clip:no-such-model/{weights}": "open_clip cannot load it",
        f"open_clip:ViT-B-32/{weights}": "open_clip cannot load it",
        f"open_clip:local-dir:{tmp_path}/nowhere": "open_clip_config.json",
        f"open_clip:local-dir:{tmp_path}": "open_clip cannot load it",
        f"{tmp_path}/nowhere": "there is no such folder",
        f"{tmp_path}": "it holds no run.yaml",
    }.items():
        with pytest.raises(UserError, match=said) as caught:
            load(reference)
        assert str(caught.value).startswith(reference)


def trained(out: Path, recipe: str, steps: int, settings: Mapping[str, str], **given: str) -> Path:
    """A short run."""
    made = api.make_recipe(recipe, steps=steps, settings=settings, **given)
    pretraining.start(made, out, [], lambda line: None)
    return out


def test_a_student_stands_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    """It follows the teacher's grid, and takes the text tower, the words and the scale with it."""
    folder = tmp_path / "published"
    shutil.copytree(folders["native with quick GELU"], folder)
    reference = f"open_clip:local-dir:{folder}"
    teacher = load(reference)
    expected = class_weights(teacher, ["seven", "three"], ["a {}", "a small {}"])
    texts = teacher.text(WORDS)
    assert api.check("uta_tiny", data="digits", teacher=reference, settings=LEAN) == []
    run = trained(tmp_path / "student", "uta_tiny", 2, LEAN, data="digits", teacher=reference)
    shutil.rmtree(folder)

    student = load(str(run))
    assert student.grid == teacher.grid and student.size == 8 * teacher.grid[0]
    assert student.width("joint") == teacher.width("joint") and student.scale == pytest.approx(teacher.scale)
    torch.testing.assert_close(student.text(WORDS), texts, atol=1e-6, rtol=1e-5)
    given = class_weights(student, ["seven", "three"], ["a {}", "a small {}"])
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-5)
    assert student.templates == ("a {}",), "the recipe's own"
    assert pretraining.read_run(run).models["student"].size == student.size


def test_a_size_that_was_set_stays_or_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    reference = f"open_clip:local-dir:{folders['native']}"
    with pytest.raises(UserError, match=r"5x5.*4x4.*patches of 8 pixels the student needs size 32"):
        trained(tmp_path / "run", "uta_tiny", 1, LEAN | {"models.student.size": "40"}, data="digits", teacher=reference)
    assert not (tmp_path / "run").exists()
    settings = LEAN | {"models.student.size": "64", "models.student.patch": "16"}
    run = trained(tmp_path / "run", "uta_tiny", 1, settings, data="digits", teacher=reference)
    assert load(str(run)).grid == (4, 4) and load(str(run)).size == 64
