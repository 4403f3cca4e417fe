"""Text towers that learn from a teacher: dropped words and UTA of a text encoder against loops, and the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import onestage
from full_width import steps
from onestage import pretraining, recipes
from onestage.encoders import ClipText
from onestage.encoders.clip import ClipTextEncoder
from onestage.encoders.words import Tokenizer
from onestage.engine.loader import batches
from onestage.methods import METHODS
from onestage.methods.distilled import UTA_TEXT
from onestage.objective import Answers, Ask, Method, add
from onestage.ops import place_of
from onestage.pretraining import prepare
from onestage.pretraining.bundle import live
from onestage.spec import UserError, from_plain, to_plain
from onestage.teachers import RunTeacher, load
from onestage.teachers.text import ClipWords
from onestage.types import Batch, Piece, Tokens, Words
from onestage.views import SomeWords
from published import random_timm
from small import small
from stepping import brief_teacher
from test_objective import answers_for, batch_for, objective_for

TEXT = ClipText(joint=12, width=16, depth=2, heads=2, context=10)
TEXTS = ["a red seven", "a small blue three left of a green nine", "one"]
TIMM = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": 32, "num_classes": 3}
DROPPED = frozenset({"drop"})


def drawn(encoder: ClipTextEncoder) -> ClipTextEncoder:
    draw = torch.Generator().manual_seed(1)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=draw)
    return encoder.double().eval()


def hidden_of(words: Words) -> Tensor:
    return SomeWords(ratio=0.5).choose(
        torch.rand(len(words.ids), 512, generator=torch.Generator().manual_seed(2)), words.ids
    )


@torch.no_grad()
def test_words_have_the_rows_of_open_clip() -> None:
    """Its own tower gives normed rows beside the projected end, and reads texts of its whole context."""
    encoder, words = drawn(TEXT.build(DROPPED)), Tokenizer(TEXT.context, whole=True).words(TEXTS)
    found = encoder({"text": Piece(None, words)})
    encoder.tower.output_tokens = True
    pooled, rows = encoder.tower(words.ids)
    torch.testing.assert_close(found.pooled, pooled)
    torch.testing.assert_close(found.rows, rows @ encoder.tower.text_projection)
    assert found.grid == encoder.grid == (1, 10) and found.place.modality.eq(1).all()


@torch.no_grad()
def test_dropping_words_equals_a_text_of_the_others_at_their_places() -> None:
    """Each text alone, only the words that it keeps, one at a time: nothing that is hidden or behind the end counts."""
    encoder, words = drawn(TEXT.build(DROPPED)), Tokenizer(TEXT.context, whole=True).words(TEXTS)
    hidden = hidden_of(words)
    most = SomeWords(ratio=0.5).count((1, TEXT.context))
    found = encoder({"text": Piece(None, words, hidden, most, "drop")})
    assert found.rows.shape[1] == TEXT.context - most
    tower = encoder.tower
    for sample, ids in enumerate(words.ids):
        kept = [place for place, number in enumerate(ids.tolist()) if number and not hidden[sample, place]]
        assert found.place.cell[sample, : len(kept)].tolist() == kept
        for count in range(1, len(kept) + 1):
            seen = kept[:count]
            rows = torch.stack([tower.token_embedding.weight[ids[at]] + tower.positional_embedding[at] for at in seen])
            earlier = torch.full((count, count), -torch.inf).triu(1)
            last = tower.ln_final(tower.transformer(rows.unsqueeze(0), earlier))[0, -1] @ tower.text_projection
            torch.testing.assert_close(found.rows[sample, count - 1], last)
        torch.testing.assert_close(found.pooled[sample], found.rows[sample, len(kept) - 1])


def told(batch: Batch, width: int) -> dict[Ask, Tokens]:
    """A teacher's answer for every word, of noise."""
    assert batch.words is not None
    count, context = batch.words.ids.shape
    rows = torch.randn(count, context, width, generator=torch.Generator().manual_seed(5))
    cells = place_of(torch.arange(context).expand(count, -1), modality=1)
    return {Ask("teacher", "text", "joint"): Tokens(rows, rows[:, 0], cells, (1, context), None)}


def test_uta_of_texts_equals_loops() -> None:
    """Minus the mean cosine over all words that are shown, each as much as any other, start and end too."""
    objective, batch = objective_for(UTA_TEXT).eval(), batch_for(UTA_TEXT)
    ids = batch.words.ids.clone()
    ids[1, 9:], ids[2, 4:] = 0, 0
    batch = batch._replace(words=batch.words._replace(ids=ids))
    answers = told(batch, 24)
    losses, (answer,) = objective(batch, answers), answers.values()
    part = UTA_TEXT.inputs["kept"].parts["text"]
    hidden = part.hide.choose(batch.noise["kept/text"], ids)
    piece = Piece(None, batch.words, hidden, part.hide.count((1, 16)), "drop")
    tokens = objective.encoder("text")({"text": piece})
    costs = []
    for sample in range(len(ids)):
        for row, cell in zip(tokens.rows[sample], tokens.place.cell[sample].tolist(), strict=True):
            if ids[sample, cell] == 0:
                continue
            guess, target = row.detach().double(), answer.rows[sample, cell].double()
            costs.append(-float(guess @ target) / float(guess.norm() * target.norm()))
    expected = int((~hidden & (ids != 0)).sum())
    assert len(costs) == expected
    assert losses.terms["align"].item() == pytest.approx(sum(costs) / expected, rel=1e-5)
    missing = batch._replace(words=batch.words._replace(given=torch.tensor([True, True, False, True])))
    weight = objective.represent(missing, answers).targets["align"].weight
    assert weight[2].eq(0).all() and weight[0].eq(1).all()


@torch.no_grad()
def test_a_student_that_is_its_teacher_has_loss_minus_one() -> None:
    """Where a word has nothing but kept words before it; the rest has another text before it than the teacher."""
    objective, batch = objective_for(UTA_TEXT).eval(), batch_for(UTA_TEXT)
    encoder = objective.encoder("text")
    assert isinstance(encoder, ClipTextEncoder)
    batch = batch._replace(noise={"kept/text": torch.arange(16.0, 0, -1).expand(4, -1) / 17})
    answers = {Ask("teacher", "text", "joint"): encoder.words(Piece(None, batch.words))}
    represented = objective.represent(batch, answers)
    cosines = torch.cosine_similarity(represented.guesses["align"], represented.targets["align"].rows, dim=-1)
    shown = 16 - UTA_TEXT.inputs["kept"].parts["text"].hide.count((1, 16))
    torch.testing.assert_close(cosines[:, : shown - 1], torch.ones(4, shown - 1))
    assert cosines[:, -1].lt(0.9999).any()


def test_a_run_has_its_texts_and_its_teachers_images(tmp_path: Path) -> None:
    """It stands alone: the image side is a copy, the text tower its own, and the scale its teacher's."""
    teacher = load(brief_teacher(tmp_path))
    recipe = small("uta_text", data="scenes", steps=2, teachers={"teacher": str(tmp_path / "run")})
    prepared = prepare(recipe, None)
    watched = live(prepared)
    pretraining.start(recipe, tmp_path / "texts", [])
    (tmp_path / "run").rename(tmp_path / "away")
    model, pixels = load(str(tmp_path / "texts")), torch.rand(2, 3, 32, 32)
    assert isinstance(model, RunTeacher) and isinstance(teacher, RunTeacher)
    for space in ("raw", "joint"):
        torch.testing.assert_close(model.tokens(pixels, space), teacher.tokens(pixels, space), rtol=0, atol=0)
        torch.testing.assert_close(watched.tokens(pixels, space).rows, teacher.tokens(pixels, space).rows)
    assert model.scale == teacher.scale and model.has_text and model.has_joint
    own, other = model.text(TEXTS), teacher.text(TEXTS)
    assert own.shape == other.shape and not torch.allclose(own, other)
    tower = model.text_tower()
    assert isinstance(tower, ClipWords) and tower.spec == prepared.recipe.models["text"]


def test_lit_equals_loops() -> None:
    """Cross-entropy of texts over images and of images over texts, on unit rows over tau = 0.1; equal texts are each
    other's truth. The image side gets no gradient."""
    method = METHODS["lit"]
    objective, batch, answers = objective_for(method).eval(), batch_for(method), answers_for(method)
    same = torch.tensor([0, 1, 1, 3])
    batch = batch._replace(words=Words(batch.words.ids[same], same))
    (answer,) = answers.values()
    answer.pooled.requires_grad_()
    losses = objective(batch, answers)
    texts = objective.encoder("text")({"text": Piece(None, batch.words)}).pooled.detach().double()
    images = answer.pooled.detach().double()
    unit = [[row / row.norm() for row in rows] for rows in (texts, images)]
    logits = torch.tensor([[float(text @ image) / 0.1 for image in unit[1]] for text in unit[0]], dtype=torch.float64)
    costs = []
    for scores in (logits, logits.T):
        for sample, row in enumerate(scores):
            alike = [other for other in range(4) if same[other] == same[sample]]
            costs.append(sum(float(row.exp().sum().log() - row[other]) for other in alike) / len(alike))
    assert losses.terms["pair"].item() == pytest.approx(sum(costs) / 8, rel=1e-5)
    losses.total.backward()
    assert objective.likelihood("pair").log_scale.grad is not None


def test_a_run_of_lit_compares_texts_with_raw_images(tmp_path: Path) -> None:
    """Of a run the image tower is copied; of another library it is read where it stands. Neither has a head."""
    run, folder = brief_teacher(tmp_path), random_timm(tmp_path / "vit", "vit_small_patch16_224", TIMM)
    for name, reference in {"ours": run, "theirs": f"timm:local-dir:{folder}"}.items():
        recipe, said = small("lit", data="scenes", steps=2, teachers={"teacher": reference}), list[str]()
        watched = live(prepare(recipe, None))
        pretraining.start(recipe, tmp_path / name, [], said.append)
        assert any("is not copied into the run" in line for line in said) == (name == "theirs")
        teacher, model = load(reference), load(str(tmp_path / name))
        pixels = torch.rand(2, 3, 32, 32)
        for seen in (model, watched):
            torch.testing.assert_close(seen.tokens(pixels, "joint").pooled, teacher.tokens(pixels, "raw").pooled)
            torch.testing.assert_close(seen.tokens(pixels, "joint").rows, teacher.tokens(pixels, "raw").rows)
        assert model.width("joint") == teacher.width("raw") == model.text(TEXTS).shape[1]
        assert model.scale == pytest.approx(10, rel=0.1) and model.scale != 10
        assert model.templates == teacher.templates and not torch.equal(watched.text(TEXTS), model.text(TEXTS))
    with pytest.raises(UserError, match=r"cannot be averaged: images are read by timm:local-dir:.*vit, which a run"):
        onestage.average(tmp_path / "theirs", tmp_path / "theirs", out=tmp_path / "mean")
    line = onestage.average(tmp_path / "ours", tmp_path / "ours", out=tmp_path / "mean")
    torch.testing.assert_close(load(str(line)).text(TEXTS), load(str(tmp_path / "ours")).text(TEXTS))


def test_two_steps_at_full_width_and_the_numbers_of_uta() -> None:
    recipe, images = recipes.recipe("uta_text_b"), recipes.recipe("uta_b14")
    assert (recipe.batch, recipe.epochs, recipe.optimiser) == (4096, 1, images.optimiser)
    assert recipe.schedule.warmup_steps(9000) == 60 and recipe.teachers == images.teachers
    done, still = steps(recipe, Answers((1, 77), 1024, 1024))
    assert done[0].losses.terms["align"].item() == pytest.approx(0.0, abs=0.05)
    assert still == []


def test_texts_alone_cross_from_a_loading_process(tmp_path: Path) -> None:
    """No view is cut for a method that sees none, and what crosses is what is made here."""
    prepared = prepare(small("uta_text", data="scenes", teachers={"teacher": brief_teacher(tmp_path)}), None)
    crossed = list(batches(prepared.batches, 0, 3, workers=1))
    for step, batch in enumerate(crossed):
        made = prepared.batches[step]
        assert batch.views == made.views == {}
        assert batch.words is not None and made.words is not None and batch.words.ids.equal(made.words.ids)
        assert batch.noise["kept/text"].equal(made.noise["kept/text"])


@pytest.mark.parametrize("rows", [("uta", "uta_text"), ("uta_text", "uta")])
def test_both_towers_of_a_teacher_at_once(rows: tuple[str, str], tmp_path: Path) -> None:
    """A sum of UTA for images and for texts is a model of its own two towers, whichever stands first."""
    one, other = small("uta"), small("uta_text", data="scenes", steps=2, teachers={"teacher": brief_teacher(tmp_path)})
    made = dataclasses.replace(
        other, method=add([(1.0, METHODS[row]) for row in rows]), models={**one.models, **other.models}
    )
    assert made.student == "student"
    watched = live(prepare(made, None))
    pretraining.start(made, tmp_path / "both", [])
    model, teacher = load(str(tmp_path / "both")), load(str(tmp_path / "run"))
    assert isinstance(model, RunTeacher) and model.bundle.text is not None
    assert (model.bundle.name, model.bundle.text.trained_as) == ("student", "text")
    assert not (tmp_path / "both" / "bundle" / "image.safetensors").exists()
    pixels = torch.rand(2, 3, 32, 32)
    for seen in (watched, model):
        assert not torch.allclose(seen.text(TEXTS), teacher.text(TEXTS))
        assert not torch.allclose(seen.tokens(pixels, "joint").pooled, teacher.tokens(pixels, "joint").pooled)
    assert model.scale == teacher.scale


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    recipe = small("uta_text", data="scenes", teachers={"teacher": brief_teacher(tmp_path)})
    long = dataclasses.replace(TEXT, context=20)
    with pytest.raises(UserError, match=r"reads 16 words of a text, fewer than the student's 20; set models.text.cont"):
        prepare(dataclasses.replace(recipe, models={"text": long}), None)
    with pytest.raises(UserError, match="for pictures, but this method asks its teacher for words alone"):
        mode = {"mode": {"kind": "replay", "epochs": 2, "gigabytes": 1}}
        prepare(from_plain(type(recipe), to_plain(recipe) | {"serving": mode}), None)
    with pytest.raises(UserError, match="asks its teacher for words alone, which are not stored"):
        pretraining.teach(recipe, 1, tmp_path / "store", "int8", 1.0)
    for pool in ("last", "end"):
        with pytest.raises(UserError, match="its words cannot be dropped: use attention: earlier and pool: end"):
            dataclasses.replace(TEXT, attention="all", pool=pool).build(DROPPED)
    with pytest.raises(UserError, match="no place for mask tokens"):
        TEXT.build(frozenset({"replace"}))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("space", "raw", "answers for words in the joint space"),
        ("blocks", [1], "answers for words in the joint space"),
    ],
)
def test_a_teacher_gives_words_in_the_joint_space(path: str, value: object, said: str) -> None:
    plain = to_plain(UTA_TEXT)
    plain["terms"]["align"]["target"][path] = value
    with pytest.raises(UserError, match=said):
        from_plain(Method, plain)


def test_an_image_explains_a_text_by_its_pooled_row_alone() -> None:
    plain = to_plain(METHODS["clip"])
    plain["terms"]["pair"]["target"]["rows"] = "all"
    with pytest.raises(UserError, match="explained by an input of that text alone; use rows: pooled"):
        from_plain(Method, plain)
