"""open_clip models from a local folder as frozen models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional

from onestage import api, pretraining
from onestage.evaluation import class_weights
from onestage.spec import UserError
from onestage.teachers import LibraryTeacher, load
from published import NATIVE, TIMM, WORDS, picture, pixels_of, published, saved

MODELS = {"native": NATIVE, "native with quick GELU": NATIVE | {"quick_gelu": True, "custom_text": True}, "timm": TIMM}
LEAN = {"batch": "4", "workers": "0", "precision": "fp32", "models.student.depth": "1", "models.student.width": "32"}
PAIR = LEAN | {"models.text.width": "16", "models.text.depth": "1", "models.text.joint": "16"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One published folder for each kind of model."""
    root = tmp_path_factory.mktemp("published")
    return {kind: saved(root / kind.replace(" ", "_"), config) for kind, config in MODELS.items()}


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_the_pooled_joint_row_is_encode_image(kind: str, folders: dict[str, Path]) -> None:
    model, preprocess = published(folders[kind])
    teacher = load(f"open_clip:local-dir:{folders[kind]}")
    assert isinstance(teacher, LibraryTeacher)
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
    for pixels in (pixels_of(image), pixels_of(picture(teacher.size))):
        stored = teacher.tokens((pixels * 255).round().byte(), "joint").pooled
        torch.testing.assert_close(stored, teacher.tokens(pixels, "joint").pooled, atol=1e-5, rtol=1e-4)


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
