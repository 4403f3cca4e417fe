"""The objective: shared inputs and targets, EMA, and UTA's identities and FLOPs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from onestage.encoders import ClipText, Multiway, Vit
from onestage.likelihood import Gaussian
from onestage.methods import METHODS
from onestage.methods.distilled import FD, UTA
from onestage.methods.masked import MAE
from onestage.objective import (
    Answers,
    Ask,
    Ema,
    Frozen,
    Input,
    Method,
    Objective,
    Part,
    Term,
    Trained,
    asks,
    average,
    momentum,
)
from onestage.ops import place_of
from onestage.predictors import Linear
from onestage.roles import Hide
from onestage.targets import Encoded
from onestage.types import Batch, Geometry, Layer, Piece, Tokens, View, Words
from onestage.views import BlockReversed, Crop, Random, shape_of
from small import image_for, lean, looking, of_clips, reads_pairs, remembers, text_for

B, SIZE, GRID, CODES = 4, 48, (6, 6), 16
VIT = Vit(arch="vit_tiny_patch16_224", size=SIZE, patch=8, width=32, depth=2, heads=2)
MULTIWAY = Multiway(size=SIZE, patch=8, width=32, depth=2, heads=2, context=16)
TEXT = ClipText(joint=24, width=32, depth=1, heads=2, context=16)


def batch_for(method: Method, b: int = B, grid: tuple[int, int] = GRID, size: int = SIZE) -> Batch:
    generator = torch.Generator().manual_seed(3)
    geometry = Geometry(torch.tensor([[0.0, 0.0, size, size]]).expand(b, 4), torch.zeros(b, dtype=torch.bool))
    shapes = {}
    for name in sorted(method.views):
        shapes[name] = shape_of(dataclasses.replace(method.views[name], size=method.views[name].size or size))
    views = {name: View(torch.rand(b, 3, *shape, generator=generator), geometry) for name, shape in shapes.items()}
    grid = (2 * grid[0], grid[1]) if of_clips(method) else grid  # tubelets of two of its four frames
    hides = {f"{name}/{key}": part.hide for name, asked in method.inputs.items() for key, part in asked.parts.items()}
    hides |= {name: asked.mix for name, asked in method.inputs.items()}
    hidden = {
        key: torch.from_numpy(np.stack([hide.draw(np.random.default_rng(sample), grid) for sample in range(b)]))
        for key, hide in hides.items()
        if isinstance(hide, Hide)
    }
    noise = {key: torch.rand(b, grid[0] * grid[1], generator=generator) for key in hides if hides[key] is not None}
    words = Words(torch.randint(1, 400, (b, 16), generator=generator), torch.arange(b))
    return Batch(torch.arange(b), views, hidden, words, torch.arange(b) % 3, noise=noise)


def objective_for(method: Method, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    image = MULTIWAY if reads_pairs(method) else image_for(method, VIT)
    models = {name: text_for(method, TEXT, 40) if name == "text" else image for name in method.named(Trained)}
    teachers = {name: Answers(GRID, 24, 40, CODES, 3, looking(8, 40)) for name in method.named(Frozen)}
    return Objective(method, models, teachers, classes=3)


def answers_for(method: Method) -> dict[Ask, Tokens]:
    generator = torch.Generator().manual_seed(5)
    answers = {}
    for ask in asks(method):
        width = 24 if ask.space == "joint" else 40
        if ask.view == "text":
            words = place_of(torch.arange(16).expand(B, -1), modality=1)
            rows = torch.randn(B, 16, width, generator=generator)
            answers[ask] = Tokens(rows, torch.randn(B, width, generator=generator), words, (1, 16), None)
            continue
        rows, pooled = torch.randn(B, 36, width, generator=generator), torch.randn(B, width, generator=generator)
        if ask.space == "codes":
            rows = torch.randint(CODES, (B, 36, 1), generator=generator).float()
            pooled = torch.zeros(B, 1)
        if ask.space == "categories":
            rows, pooled = torch.randn(B, 36, 3, generator=generator), torch.randn(B, 3, generator=generator)
        layers = tuple(
            Layer(torch.randn(B, 36, width, generator=generator), torch.randn(B, width, generator=generator))
            for _ in range(ask.also.layers)
        )
        attention = torch.rand(B, 36, generator=generator).softmax(dim=1) if ask.also.attention else None
        cells = place_of(torch.arange(36).expand(B, -1))
        answers[ask] = Tokens(rows, pooled, cells, GRID, None, layers, attention=attention)
    return answers


@pytest.mark.parametrize("name", METHODS)
def test_every_row_learns_one_batch_and_uses_every_parameter(name: str) -> None:
    method = lean(METHODS[name])
    objective, batch, answers = objective_for(method), batch_for(method), answers_for(method)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    first = objective(batch, answers)
    first.total.backward()
    assert [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None] == []
    for step in range(12):
        optimiser.zero_grad()
        objective(batch, answers).total.backward()
        optimiser.step()
        if remembers(method):
            objective.after_skip()
        else:
            objective.after_step(step, 12)
    assert objective(batch, answers).total < first.total - 0.01 * first.total.abs()


def test_initial_losses_are_those_of_ignorance() -> None:
    supervised = objective_for(METHODS["supervised"])(batch_for(METHODS["supervised"]), {})
    assert supervised.total.item() == pytest.approx(math.log(3), abs=0.05)
    for name in ("uta", "mvp", "eva"):
        loss = objective_for(METHODS[name])(batch_for(METHODS[name]), answers_for(METHODS[name])).total
        assert abs(loss.item()) < 0.1


def test_an_input_named_by_two_terms_is_encoded_once_and_a_target_computed_once() -> None:
    terms = dict(UTA.terms) | {"again": UTA.terms["align"]}
    method = Method(name="two", cite="-", encoders=UTA.encoders, inputs=UTA.inputs, terms=terms, views=UTA.views)
    objective, calls = objective_for(method), []
    objective.encoder("student").register_forward_hook(lambda *_: calls.append(1))
    losses = objective(batch_for(method), answers_for(method))
    assert len(calls) == 1 and set(losses.terms) == {"align", "again"}
    assert len(asks(method)) == 1


def test_the_total_is_the_weighted_sum_of_terms() -> None:
    term = UTA.terms["align"]
    heavy = Term(
        x=term.x, y=term.y, target=term.target, predictor=term.predictor, likelihood=term.likelihood, weight=3.0
    )
    method = Method(
        name="two", cite="-", encoders=UTA.encoders, inputs=UTA.inputs, terms={"a": term, "b": heavy}, views=UTA.views
    )
    losses = objective_for(method)(batch_for(method), answers_for(method))
    torch.testing.assert_close(losses.total, losses.terms["a"] + 3 * losses.terms["b"])


def test_mvp_weighs_the_class_token_and_each_patch_alike() -> None:
    """Seed 000: the class token and all M patches, each with weight 1/(M+1), whether masked or not."""
    method = METHODS["mvp"]
    objective, batch, answers = objective_for(method), batch_for(method), answers_for(method)
    represented = objective.represent(batch, answers)
    guess, (answer,) = represented.guesses["guide"].double(), answers.values()
    total = 0.0
    for sample in range(B):
        rows = torch.cat([answer.pooled[sample : sample + 1], answer.rows[sample]]).double()
        for row in range(37):
            a, b = guess[sample, row], rows[row]
            total -= float((a @ b).detach() / (a.norm() * b.norm()).detach()) / 37 / B
    assert objective.score(represented).total.detach().item() == pytest.approx(total, abs=1e-5)


def test_uta_with_the_student_set_to_the_teacher_and_nothing_hidden_has_loss_minus_one() -> None:
    method = Method(
        name="identity",
        cite="-",
        encoders=UTA.encoders,
        inputs={
            "kept": Input(encoder="student", parts={"image": Part(of="view1", hide=Random(ratio=0.0), mode="drop")})
        },
        terms=UTA.terms,
        views=UTA.views,
    )
    objective, batch = objective_for(method).eval(), batch_for(method)
    student, head = objective.encoder("student"), objective.predictor("align")
    from onestage.types import POOLED, Wanted

    tokens = student({"image": Piece(batch.views["view1"])})
    cells = torch.cat([torch.full((B, 1), POOLED), tokens.place.cell], dim=1)
    rows = head(tokens, Wanted(cells, GRID, None))
    (ask,) = asks(method)
    answer = tokens._replace(rows=rows[:, 1:].detach(), pooled=rows[:, 0].detach())
    assert objective(batch, {ask: answer}).total.item() == pytest.approx(-1.0, abs=1e-6)


def ema_method(when: str, momentum: float = 0.5) -> Method:
    return Method(
        name="self",
        cite="-",
        encoders={"student": Trained(), "slow": Ema(of="student", momentum=momentum, end=momentum, when=when)},
        inputs={"kept": UTA.inputs["kept"]},
        terms={
            "self": Term(
                x="kept",
                y="view1",
                target=Encoded(encoder="slow", rows="kept", space="raw", norm="layer"),
                predictor=Linear(),
                likelihood=Gaussian(form="squared"),
            )
        },
        views={"view1": Crop(size=SIZE)},
    )


def test_ema_targets_follow_the_student_and_get_no_gradient() -> None:
    objective = objective_for(ema_method("after"))
    slow = {name: p.clone() for name, p in objective.encoder("slow").named_parameters()}
    fast = dict(objective.encoder("student").named_parameters())
    assert all(torch.equal(slow[name], fast[name]) for name in slow)
    objective(batch_for(objective.method), {}).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.encoder("slow").parameters())
    with torch.no_grad():
        for p in fast.values():
            p.add_(1.0)
    objective.after_step(0, 10)
    for name, p in objective.encoder("slow").named_parameters():
        torch.testing.assert_close(p, slow[name] + 0.5, atol=1e-6, rtol=1e-6)


def test_ema_before_the_forward_pass_reads_its_schedule_one_step_later() -> None:
    after, before = Ema(of="s", momentum=0.9, when="after"), Ema(of="s", momentum=0.9, when="before")
    for step in range(9):
        assert momentum(before, step, 10) == momentum(after, step + 1, 10)
    assert momentum(after, 0, 10) == pytest.approx(0.9) and momentum(after, 10, 10) == pytest.approx(1.0)
    assert momentum(after, 5, 10) == pytest.approx(0.95)


def test_average_copies_or_averages_buffers() -> None:
    slow, fast = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    fast.running_mean.fill_(4.0)
    fast.num_batches_tracked.fill_(7)
    average(slow, fast, 0.75, "average")
    assert slow.running_mean.tolist() == [1.0, 1.0] and slow.num_batches_tracked.item() == 7
    average(slow, fast, 0.75, "copy")
    assert slow.running_mean.tolist() == [4.0, 4.0]


def test_uta_student_flops_follow_the_kept_tokens() -> None:
    """Counted on the built model at ratio 0.4, against a closed form and against 0.6 of the full pass."""
    model = Vit(arch="vit_base_patch16_224", size=224, width=192, depth=4, heads=3)
    counts = {}
    for name, ratio in (("full", 0.0), ("kept", 0.4)):
        hide = BlockReversed(ratio=ratio)
        encoder = model.build(frozenset())
        hidden = torch.from_numpy(hide.draw(np.random.default_rng(0), encoder.grid)).unsqueeze(0)
        geometry = Geometry(torch.zeros(1, 4), torch.zeros(1, dtype=torch.bool))
        piece = Piece(
            View(torch.rand(1, 3, 224, 224), geometry), hidden=hidden, hides=hide.count(encoder.grid), mode="drop"
        )
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder({"image": piece})
        counts[name] = counter.get_total_flops()
    kept = 196 - round(0.4 * 196)
    assert counts["full"] == closed_form(197, 192, 4)
    assert counts["kept"] == closed_form(kept + 1, 192, 4)
    assert counts["kept"] / counts["full"] == pytest.approx(0.6, rel=0.03)


def closed_form(tokens: int, width: int, depth: int) -> int:
    """Forward FLOPs (two a multiply-add): patches, then qkv, scores, values, projection and the feed-forward."""
    linear = 2 * tokens * width * (3 * width + width + 8 * width)
    attention = 2 * 2 * tokens * tokens * width
    return 2 * 196 * (16 * 16 * 3) * width + depth * (linear + attention)


def test_score_is_fp32_under_autocast() -> None:
    objective = objective_for(FD)
    with torch.autocast("cpu", torch.bfloat16):
        represented = objective.represent(batch_for(FD), answers_for(FD))
    losses = objective.score(represented)
    assert losses.total.dtype == torch.float32 and all(loss.dtype == torch.float32 for loss in losses.terms.values())


def test_text_identity_reaches_the_likelihood() -> None:
    """Two samples with the same caption are positives of one another: swapping their images changes nothing."""
    clip = METHODS["clip"]
    objective, batch = objective_for(clip).eval(), batch_for(clip)
    assert batch.words is not None
    ids = batch.words.ids.clone()
    ids[1] = ids[0]
    same = batch._replace(words=Words(ids, torch.tensor([0, 0, 2, 3])))
    order = torch.tensor([1, 0, 2, 3])
    view = same.views["view1"]
    swapped = same._replace(views={"view1": View(view.pixels[order], view.geometry)})
    torch.testing.assert_close(objective(same, {}).total, objective(swapped, {}).total)


def test_decoded_rows_answer_in_the_order_of_the_cells_asked() -> None:
    objective, batch = objective_for(MAE).eval(), batch_for(MAE)
    represented = objective.represent(batch, {})
    hidden: Tensor = batch.hidden["kept/image"]
    assert represented.guesses["pixels"].shape == (B, int(hidden[0].sum()), 8 * 8 * 3)
    assert represented.targets["pixels"].rows.shape == represented.guesses["pixels"].shape
