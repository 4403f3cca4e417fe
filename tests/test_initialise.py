"""`--init`: starts from models of other libraries, from two models at once, and what is refused."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch

from full_width import shallow
from onestage import cli, pretraining
from onestage.encoders import ClipImage, ClipText, ConvNext, EncoderSpec, Vit
from onestage.encoders.clip import ClipTextEncoder
from onestage.encoders.convnext import ConvNextEncoder
from onestage.objective import Objective
from onestage.pretraining import Prepared, initialise_from, prepare
from onestage.pretraining.bundle import live
from onestage.pretraining.initialise import starts_of
from onestage.recipes import recipe
from onestage.spec import UserError
from onestage.teachers import load
from onestage.teachers.resize import whole
from onestage.types import Piece, View, Wanted, Words
from published import NATIVE, TIMM, WORDS, random_timm, saved
from small import small
from stepping import brief_teacher

TEXT = ClipText(joint=24, width=16, depth=2, heads=2, context=12)
CLIP_IMAGE = ClipImage(size=32, patch=8, width=32, depth=2, heads=2, normalise="none")
SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32, "num_classes": 3}
VIT = Vit(arch="vit_small_patch16_224", size=32, patch=8, width=32, depth=2, heads=2, normalise="none")


def begun(reference: str, image: EncoderSpec, text: ClipText = TEXT, row: str = "clip") -> Prepared:
    """A run in memory, started from a reference; its pixels are as the library's after normalisation."""
    made = small(row, data="scenes")
    models = {name: text if name == "text" else image for name in made.models}
    prepared = prepare(dataclasses.replace(made, models=models), None)
    initialise_from(prepared.objective, prepared.recipe, reference)
    prepared.objective.eval()
    return prepared


def same_images(prepared: Prepared, reference: str) -> None:
    """The run's model sees normalised pixels as its teacher does, in both spaces."""
    teacher, model = load(reference), live(prepared)
    pixels = torch.rand(2, 3, teacher.size, teacher.size)
    normalised = (pixels - teacher.mean) / teacher.std
    for space in ("raw", "joint") if teacher.has_joint else ("raw",):
        found, expected = model.tokens(normalised, space), teacher.tokens(pixels, space)
        torch.testing.assert_close(found.rows, expected.rows, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=1e-4)
    if teacher.has_text:
        torch.testing.assert_close(model.text(WORDS), teacher.text(WORDS), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_open_clips_own_towers(tmp_path: Path) -> None:
    reference = f"open_clip:local-dir:{saved(tmp_path / 'clip', NATIVE)}"
    same_images(begun(reference, CLIP_IMAGE), reference)


@torch.no_grad()
def test_open_clips_towers_of_timm(tmp_path: Path) -> None:
    reference = f"open_clip:local-dir:{saved(tmp_path / 'eva', TIMM)}"
    image = Vit(arch="eva02_tiny_patch14_224", size=224, normalise="none")
    same_images(begun(reference, image), reference)


@torch.no_grad()
def test_timms_models(tmp_path: Path) -> None:
    reference = f"timm:local-dir:{random_timm(tmp_path / 'vit', 'vit_small_patch16_224', SMALL)}"
    same_images(begun(reference, VIT, row="mae"), reference)


@torch.no_grad()
@pytest.mark.parametrize("arch", ["convnext_atto", "convnextv2_atto"])
def test_timms_convnexts(arch: str, tmp_path: Path) -> None:
    """timm norms the mean alone; our rows are normed each by that norm. The mask token begins as it is drawn."""
    widths, depths = (8, 8, 16, 16), (1, 1, 2, 1)
    folder = random_timm(tmp_path / "net", arch, {"depths": depths, "dims": widths, "num_classes": 3})
    image = ConvNext(arch=arch, size=224, widths=widths, depths=depths, normalise="none")
    prepared = begun(f"timm:local-dir:{folder}", image, row="simmim")
    teacher, pixels = load(f"timm:local-dir:{folder}"), torch.rand(2, 3, 224, 224)
    found = live(prepared).tokens((pixels - teacher.mean) / teacher.std, "raw")
    expected = teacher.tokens(pixels, "raw")
    torch.testing.assert_close(found.pooled, expected.pooled, atol=1e-4, rtol=1e-4)
    encoder = prepared.objective.encoder("student")
    assert isinstance(encoder, ConvNextEncoder) and encoder.mask is not None
    maps = expected.rows.transpose(1, 2).unflatten(2, (7, 7))
    rows = encoder.backbone.head.norm(maps).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.rows, rows, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clip_of_transformers(tmp_path: Path) -> None:
    """Its texts are compared word by word: which tokenizer numbers them is another question."""
    pytest.importorskip("transformers")
    import test_teachers_hf as theirs

    folder = theirs.saved(tmp_path / "clip", "clip")
    image = dataclasses.replace(CLIP_IMAGE, activation="quick_gelu", mlp_ratio=1.5)
    text = dataclasses.replace(TEXT, vocabulary=80, mlp_ratio=1.5, activation="quick_gelu")
    made = small("clip", data="scenes")
    objective = Objective(made.method, {"student": image, "text": text}, {}).eval()
    recipe = dataclasses.replace(made, models={"student": image, "text": text})
    matched = initialise_from(objective, recipe, f"hf:{folder}")
    assert matched.missing == () and len(matched.loaded) > 60
    teacher, model = load(f"hf:{folder}"), theirs.opened(folder)
    pixels, ids = torch.rand(2, 3, 32, 32), torch.randint(2, 79, (3, 12))
    images = (pixels - teacher.mean) / teacher.std
    tokens = objective.encoder("student")({"image": Piece(View(images, whole(images)))})
    wanted = Wanted(torch.tensor([[-1, 0, 15]] * 2), tokens.grid, None)
    answer = teacher.tokens(pixels, "joint")
    expected = torch.stack([answer.pooled, answer.rows[:, 0], answer.rows[:, 15]], dim=1)
    torch.testing.assert_close(objective.predictor("pair")(tokens, wanted), expected, atol=1e-5, rtol=1e-4)
    encoder = objective.encoder("text")
    assert isinstance(encoder, ClipTextEncoder)
    rows = model.text_projection(model.text_model(ids).last_hidden_state)
    torch.testing.assert_close(encoder.words(Piece(None, Words(ids, ids[:, 0]))).rows, rows, atol=1e-5, rtol=1e-4)


def test_no_encoder_is_made_of_every_tower(tmp_path: Path) -> None:
    folder = random_timm(tmp_path / "net", "resnet10t", {"num_classes": 3})
    with pytest.raises(
        UserError, match=r"no encoder of ours is made of ResNet.*use a ViT, an EVA-02, a Swin or a ConvNeXt"
    ):
        begun(f"timm:local-dir:{folder}", VIT, row="mae")
    pytest.importorskip("transformers")
    import test_teachers_hf as theirs

    for kind, tower in {"dinov2": "Dinov2Model", "siglip": "Siglip"}.items():
        with pytest.raises(UserError, match=rf"image tower \({tower}.*no run can start from it. timm: has"):
            begun(f"hf:{theirs.saved(tmp_path / kind, kind)}", VIT, row="mae")


def test_two_models_at_once(tmp_path: Path) -> None:
    """UTA's fine-tuning by two names: images from one model, texts from another, in a shorter context."""
    run, folder = brief_teacher(tmp_path), saved(tmp_path / "clip", NATIVE)
    text = dataclasses.replace(TEXT, context=9)
    image = small("clip").models["student"]
    both = begun(f"image={run},text=open_clip:local-dir:{folder}", image, text)
    ours, theirs = load(run), load(f"open_clip:local-dir:{folder}")
    pixels, short = torch.rand(2, 3, 32, 32), ["a seven", "one"]
    model = live(both)
    torch.testing.assert_close(model.tokens(pixels, "raw").rows, ours.tokens(pixels, "raw").rows)
    torch.testing.assert_close(model.text(short), theirs.text(short), atol=1e-5, rtol=1e-4)
    alone = begun(f"text={run}", image, dataclasses.replace(TEXT, joint=16, width=32, depth=1, context=16))
    torch.testing.assert_close(live(alone).text(short), ours.text(short))
    assert not torch.allclose(live(alone).tokens(pixels, "raw").rows, ours.tokens(pixels, "raw").rows)


def test_starts_by_their_words() -> None:
    assert starts_of("runs/a,b") == {"image": "runs/a,b", "text": "runs/a,b"}
    assert starts_of("image=a,text=b=c,d") == {"image": "a", "text": "b=c,d"}
    assert starts_of("text=b") == {"text": "b"}
    for wrong in ("image=", "a,text=b", "image=a,image=b"):
        with pytest.raises(UserError, match=r"expected REF, or image=REF,text=REF, or one of the two"):
            starts_of(wrong)


def test_what_does_not_match_is_listed(tmp_path: Path) -> None:
    run = brief_teacher(tmp_path)
    image = small("clip").models["student"]
    with pytest.raises(UserError, match=r"12 are not in it \(student.backbone.blocks.2.norm1.weight, .*same archit"):
        begun(run, dataclasses.replace(image, depth=3), small("clip").models["text"])
    deeper, text = dataclasses.replace(image, depth=3), small("clip").models["text"]
    made = small("clip", data="scenes", anew=("encoders.student.backbone.blocks.2.*",))
    prepared = prepare(dataclasses.replace(made, models={"student": deeper, "text": text}), None)
    initialise_from(prepared.objective, prepared.recipe, run)
    text = ClipText(joint=16, width=32, depth=1, heads=2, context=20)
    with pytest.raises(UserError, match=r"1 have another shape .*\(text.tower.positional_embedding\)"):
        begun(run, image, text)
    plain = small("mae", data="digits", steps=1)
    pretraining.start(plain, tmp_path / "mae", [])
    with pytest.raises(UserError, match=r"mae holds no text encoder"):
        begun(f"image={run},text={tmp_path / 'mae'}", image, small("clip").models["text"])
    with pytest.raises(UserError, match=r"mae_small trains no text encoder"):
        begun(f"image={run},text={run}", image, row="mae")


def test_statistics_of_a_start_are_checked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = random_timm(tmp_path / "vit", "vit_small_patch16_224", SMALL)
    line = f"check mae_tiny --data digits --init timm:local-dir:{folder} --models.student.width 32"
    assert cli.command(line.split()) == 1
    said = capfd.readouterr()
    assert "learned from pixels normalised by statistics of their own" in said.out + said.err


def test_the_rival_starts_from_what_eva_clip_starts_from() -> None:
    """EVA-02's own tower, which has no norm inside attention; and CLIP's texts, whose projection is drawn anew."""
    made, before = shallow(recipe("eva02_clip_b16")), shallow(recipe("eva02_b14"))
    encoder = made.models["student"].build(frozenset())
    given = before.models["student"].build(frozenset()).state_dict().keys()
    lacking = {key for key in encoder.state_dict() if key not in given}
    assert lacking == {f"backbone.blocks.{block}.attn.norm.{leaf}" for block in range(2) for leaf in ("weight", "bias")}
    assert all(any(fnmatchcase(f"encoders.student.{key}", one) for one in made.anew) for key in lacking)
