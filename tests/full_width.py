"""Steps of paper-size recipes at full width, two blocks deep, on two images of noise and a teacher of noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from onestage.encoders import ClipText, EncoderSpec, Multiway, Swin, Vit
from onestage.engine.optimiser import Optimisers
from onestage.engine.step import Step, Stepped
from onestage.objective import Answers, Ask, Frozen, Objective
from onestage.ops import place_of
from onestage.pretraining import Recipe
from onestage.roles import Hide
from onestage.types import Batch, Geometry, Layer, Tokens, View, Words
from onestage.views import shape_of

Answer = Callable[[Ask, Batch], Tokens]


def student_of(recipe: Recipe) -> Vit:
    """The recipe's student, a ViT."""
    model = recipe.models["student"]
    assert isinstance(model, Vit)
    return model


def shallow(recipe: Recipe, depth: int = 2) -> Recipe:
    """The recipe with encoders of two blocks."""
    models = {key: _shallow(model, depth) for key, model in recipe.models.items()}
    return dataclasses.replace(recipe, models=models)


def _shallow(model: EncoderSpec, depth: int) -> EncoderSpec:
    if isinstance(model, Swin):
        return dataclasses.replace(model, depths=(1, 1, 1, 1))
    return dataclasses.replace(model, depth=depth)


def batch_of_two(recipe: Recipe, objective: Objective) -> Batch:
    """Two images of noise, with what the recipe hides."""
    size = objective.encoder(recipe.student).size
    geometry = Geometry(torch.tensor([[0.0, 0.0, size, size]] * 2), torch.zeros(2, dtype=torch.bool))
    draw = torch.Generator().manual_seed(2)
    shapes = {
        name: shape_of(dataclasses.replace(view, size=view.size or max(size, 1)))
        for name, view in recipe.method.views.items()
    }
    views = {name: View(torch.rand(2, 3, *shape, generator=draw), geometry) for name, shape in shapes.items()}
    hidden, noise = {}, {}
    for name, asked in recipe.method.inputs.items():
        grid = objective.encoder(asked.encoder).grid
        for key, part in asked.parts.items():
            if part.hide is not None:
                noise[f"{name}/{key}"] = torch.rand(2, grid[0] * grid[1], generator=draw)
            if isinstance(part.hide, Hide):
                draws = [part.hide.draw(np.random.default_rng(sample), grid) for sample in range(2)]
                hidden[f"{name}/{key}"] = torch.from_numpy(np.stack(draws))
    label = torch.arange(2) if recipe.method.needs_labels else None
    return Batch(torch.arange(2), views, hidden, _words(recipe, draw), label, noise=noise)


def _words(recipe: Recipe, draw: torch.Generator) -> Words | None:
    """Two texts as long as the context, each with its end token last."""
    for model in recipe.models.values():
        if isinstance(model, (ClipText, Multiway)):
            ids = torch.randint(model.vocabulary - 2, (2, model.context), generator=draw)
            ids[:, -1] = model.vocabulary - 1
            return Words(ids, torch.arange(2))
    return None


def noise_teacher(answers: Answers) -> Answer:
    """A frozen encoder that answers with noise of these widths on this grid."""

    def answer(ask: Ask, batch: Batch) -> Tokens:
        count = answers.grid[0] * answers.grid[1]
        width = answers.joint if ask.space == "joint" else answers.raw
        rows = torch.randn(2, count + 1, width, generator=torch.Generator().manual_seed(1))
        cells = torch.arange(count).expand(2, -1)
        if ask.space == "codes":
            rows = torch.randint(answers.codes, (2, count + 1, 1), generator=torch.Generator().manual_seed(1)).float()
        if ask.space == "categories":
            rows = torch.randn(2, count + 1, answers.categories, generator=torch.Generator().manual_seed(1))
        attention = torch.rand(2, count, generator=torch.Generator().manual_seed(4)).softmax(dim=1)
        layers = (Layer(rows[:, 1:], rows[:, 0]),) * ask.also.layers
        geometry = batch.views[ask.view].geometry if ask.view in batch.views else None
        return Tokens(rows[:, 1:], rows[:, 0], place_of(cells), answers.grid, geometry, layers, (), attention)

    return answer


def steps(recipe: Recipe, answers: Answers | None = None, depth: int = 2) -> tuple[list[Stepped], list[str]]:
    """Two steps with the recipe's own optimiser, and the names of what is trained and stayed as it was."""
    small = shallow(recipe, depth)
    torch.manual_seed(0)
    teachers = {} if answers is None else dict.fromkeys(small.method.named(Frozen), answers)
    objective = Objective(small.method, small.models, teachers, 10)
    objective.training_mode()
    optimisers = Optimisers(objective.named_parameters(), small.optimiser, small.batch)
    teacher = noise_teacher(answers or Answers((0, 0), 0, 0))
    step = Step(objective, optimisers, teacher, "fp32", 1, torch.device("cpu"))
    batch = batch_of_two(small, objective)
    before = {key: value.detach().clone() for key, value in objective.named_parameters() if value.requires_grad}
    done = []
    for number in (1000, 1001):
        optimisers.set_lr(small.schedule, number, 2000)
        done.append(step(batch, number, 2000))
        assert not done[-1].skipped and torch.isfinite(done[-1].losses.total)
    after = dict(objective.named_parameters())
    return done, [key for key, value in before.items() if value.equal(after[key])]
