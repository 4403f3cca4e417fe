"""Recipes of every row of the table that train in a second, for the tests of training."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from onestage.encoders import ClipText, Codes, Mlp, Multiway, ProjectorSpec, Second, Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.likelihood import Boltzmann, Centred, Gaussian, Prototypes
from onestage.methods import METHODS
from onestage.objective import Ema, Frozen, Input, Method, Part, Term, Trained
from onestage.objective.crops import fewer
from onestage.objective.drawn import Look
from onestage.ops import patchify, place_of
from onestage.predictors import MLP, Decoder, Latent, Linear, PredictorSpec, Prompting, Quantised, Relative
from onestage.pretraining import Recipe, Saving
from onestage.roles import Space
from onestage.targets import Encoded
from onestage.types import Also, Layer, Tokens
from onestage.views import Crop, Frames, Random

BATCH, STEPS = 8, 12
VIT = Vit(arch="vit_tiny_patch16_224", size=32, patch=8, width=32, depth=2, heads=2, normalise="half")
MULTIWAY = Multiway(size=32, patch=8, width=32, depth=2, heads=2, context=16)
TEXT = ClipText(joint=16, width=32, depth=1, heads=2, context=16)
ALL_SAVED = Saving(minutes=1e-9, keep=100)
"""A checkpoint after every step."""

AVERAGED = Method(
    name="averaged",
    cite="a student that learns from its own average, as BYOL's (arXiv:2006.07733)",
    encoders={"student": Trained(), "average": Ema(of="student", momentum=0.9)},
    views={"view1": Crop(scale=(0.6, 1.0))},
    inputs={"kept": Input(encoder="student", parts={"image": Part(of="view1", hide=Random(ratio=0.5), mode="drop")})},
    terms={
        "self": Term(
            x="kept",
            y="view1",
            target=Encoded(encoder="average", rows="kept+cls"),
            predictor=Linear(),
            likelihood=Gaussian(form="cosine"),
        )
    },
)
ROWS = METHODS | {"averaged": AVERAGED}
TAUGHT = [name for name, method in ROWS.items() if method.named(Frozen)]


def reads_pairs(method: Method) -> bool:
    """Whether its student reads texts beside images."""
    return any(part.of == "text" for asked in method.inputs.values() for part in asked.parts.values())


def of_clips(method: Method) -> bool:
    """Whether its student sees clips."""
    return any(view.frames is not None for view in method.views.values())


def image_for(method: Method, vit: Vit = VIT) -> Vit | Multiway:
    """The image encoder, with whatever of it the method reads."""
    if reads_pairs(method):
        return MULTIWAY
    if of_clips(method):
        return dataclasses.replace(vit, frames=4, tubelet=2, class_tokens=0, pool="mean")
    two = any(isinstance(one, Second) for one in method.projectors.values())
    return dataclasses.replace(vit, class_tokens=2) if two else vit


def looking(patch: int, width: int) -> Look:
    """A frozen encoder with gradients for its images: a fixed map of each patch, and blocks that bend it."""

    def look(pixels: Tensor, space: Space, also: Also) -> Tokens:
        patches = patchify(pixels, patch)
        draw = torch.Generator().manual_seed(9)
        rows = (patches - 0.4) @ torch.randn(patches.shape[-1], width, generator=draw).to(patches)
        layers = tuple(Layer(rows.sin() * depth, rows.mean(dim=1)) for depth in range(also.layers, 0, -1))
        side = pixels.shape[-1] // patch
        cells = place_of(torch.arange(side**2).expand(len(rows), -1))
        return Tokens(rows, rows.mean(dim=1), cells, (side, side), None, layers)

    return look


def lean(method: Method) -> Method:
    """The method with decoders and projectors of one narrow block, and at most two small crops."""
    method = fewer(method, 2, Crop(size=24, scale=(0.3, 0.6)))
    decoders = {
        "decoder": Decoder(width=32, depth=1, heads=2),
        "relative": Relative(width=32, depth=1, heads=2),
        "prompting": Prompting(width=32, depth=1, heads=2),
        "latent": Latent(depth=1, heads=2),
        "quantised": Quantised(codes=24, values=8, width=32, heads=2),
    }
    terms = {
        name: dataclasses.replace(term, predictor=_thin(decoders.get(term.predictor.kind, term.predictor)))
        for name, term in method.terms.items()
    }
    views = {
        name: view if view.frames is None else dataclasses.replace(view, frames=Frames(count=4))
        for name, view in method.views.items()
    }
    for name, term in terms.items():
        if isinstance(term.likelihood, Boltzmann) and term.likelihood.over == "queue":
            terms[name] = dataclasses.replace(term, likelihood=dataclasses.replace(term.likelihood, size=256))
        if isinstance(term.likelihood, Prototypes):
            terms[name] = dataclasses.replace(term, likelihood=dataclasses.replace(term.likelihood, count=24))
    projectors = {name: _narrow(one) for name, one in method.projectors.items()}
    return dataclasses.replace(method, views=views, terms=terms, projectors=projectors)


def _narrow(projector: ProjectorSpec) -> ProjectorSpec:
    if isinstance(projector, Mlp):
        return dataclasses.replace(projector, hidden=24, out=16)
    if isinstance(projector, Codes):
        return dataclasses.replace(projector, hidden=24, depth=2, bottleneck=256, codes=32)
    return projector if isinstance(projector, Second) else dataclasses.replace(projector, depth=1, heads=2)


def _thin(predictor: PredictorSpec) -> PredictorSpec:
    wide = isinstance(predictor, MLP) and predictor.hidden is not None
    return dataclasses.replace(predictor, hidden=24) if wide else predictor


def small(row: str, **changes: Any) -> Recipe:
    """A row as a recipe of 12 steps of 8 digits; `vit` changes the image encoder, the rest are fields of the recipe."""
    method = ROWS[row]
    image = dataclasses.replace(image_for(method), **changes.pop("vit", {}))
    recipe = Recipe(
        name=f"{row}_small",
        method=lean(method),
        models={name: text_for(method) if name == "text" else image for name in method.named(Trained)},
        batch=BATCH,
        steps=STEPS,
        data="digits",
        optimiser=Optimiser(groups={"all": Group(lr=1e-2, clip=1.0)}, reference_batch=4 * BATCH),
        schedule=Cosine(warmup=0.2, end=1e-5),
        precision="fp32",
        workers=0,
        saving=ALL_SAVED,
    )
    return dataclasses.replace(recipe, **changes)


def text_for(method: Method, tower: ClipText = TEXT, raw: int = 32) -> ClipText:
    """The tower; where images are compared as they are, its rows are as wide as theirs, a teacher's raw ones too."""
    targets = [term.target for term in method.terms.values() if method.reads_text_alone(term)]
    if any(isinstance(target, Encoded) and target.space == "raw" for target in targets):
        return dataclasses.replace(tower, joint=raw)
    same = any(
        term.y == "text" and term.predictor.kind == "same" and not method.reads_text_alone(term)
        for term in method.terms.values()
    )
    return dataclasses.replace(tower, joint=VIT.width) if same else tower


def remembers(method: Method) -> bool:
    """Whether what a likelihood remembers of a step changes what the next one has to explain: of one batch, a queue
    would hold its own targets as wrong answers, and a centre take them away."""
    found = [term.likelihood for term in method.terms.values()]
    return any(isinstance(one, Centred) or (isinstance(one, Boltzmann) and one.over == "queue") for one in found)
