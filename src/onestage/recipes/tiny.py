"""The `*_tiny` recipes: every row of the table at a size that learns on two cores, derived from the row itself.

Two budgets on two quiet cores: `smoke` (under a minute: it runs, its loss falls) and `demo` (about 150 s: it learns
something that can be seen on the built-in pictures).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from onestage.encoders import ClipText, Codes, EncoderSpec, Mlp, Multiway, ProjectorSpec, Second, Vit
from onestage.engine.groups import Group, Optimiser
from onestage.engine.schedule import Cosine
from onestage.engine.texts import ShortFirst
from onestage.likelihood import Boltzmann, Centred, LikelihoodSpec, Prototypes
from onestage.objective import Ema, EncoderRole, Frozen, Method, Trained, add
from onestage.objective.crops import fewer, is_local
from onestage.predictors import MLP, Decoder, Latent, PredictorSpec, Prompting, Quantised, Relative, Same
from onestage.pretraining import Recipe, Watch
from onestage.views import Colour, Crop, Frames, Random, SomeWords

Budget = Literal["smoke", "demo"]

SIZE = 48
BATCH = 64
STEPS: dict[Budget, int] = {"smoke": 120, "demo": 900}
TAUGHT: dict[Budget, int] = {"smoke": 120, "demo": 1300}
"""A student without texts has the faster step, and needs more of them to come near its teacher."""
VIT = Vit(
    arch="vit_tiny_patch16_224",
    size=SIZE,
    patch=8,
    width=128,
    depth=3,
    heads=2,
    stem="conv",
    init="mae",
    normalise="half",
)
STUDENT = dataclasses.replace(VIT, size=None, width=96)
"""Learns from a teacher of another width, on the teacher's grid."""
TEXT = ClipText(joint=64, width=64, depth=2, heads=2, context=24)
MULTIWAY = Multiway(patch=8, width=96, depth=3, heads=2, context=24)
DECODER = Decoder(width=64, depth=2, heads=2)
RELATIVE = Relative(width=64, depth=2, heads=2)
PROMPTING = Prompting(width=64, depth=2, heads=2)
QUANTISED = Quantised(codes=256, values=16, width=64, heads=2)
LATENT = Latent(depth=2, heads=2)
OTHER = Crop(scale=(0.5, 1.0), flip=0.0, colour=Colour(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2))
"""The second view of a picture: what it shows stays in it mostly, its colours do not."""
FRAMES = Frames(count=4)
"""All of a clip at a glance."""
CLIPS = dataclasses.replace(
    VIT, frames=FRAMES.count, tubelet=2, class_tokens=0, pool="mean", positions="sines", stem="patch"
)
NEAR = dataclasses.replace(OTHER, size=SIZE // 2, scale=(0.2, 0.5))
"""A small crop, of which two are enough."""


def tiny(rows: Sequence[tuple[float, Method]], budget: Budget) -> Recipe:
    """A row, or a weighted sum of rows, as a recipe for two cores: the same inputs, targets and likelihoods, small
    models, gentle views.

    Captions are read short first, since small models otherwise learn their colours alone; and nothing that could make
    a caption false is done to a picture that is read with one.
    """
    with_texts = any(row.needs_texts for _, row in rows)
    gentle = [(weight, _small(_gentle(row, with_texts))) for weight, row in rows]
    method = gentle[0][1] if len(gentle) == 1 else add(gentle)
    steps = (TAUGHT if method.named(Frozen) else STEPS)[budget] // (3 if _is_tuned(method) else 1)
    name = "+".join(f"{weight:g}*{row.name}" if weight != 1 else row.name for weight, row in rows)
    return Recipe(
        name=f"{name}_tiny" if budget == "demo" else f"{name}_tiny:{budget}",
        method=method,
        models={name: _model(method, name) for name in method.named(Trained)},
        batch=BATCH,
        steps=steps,
        optimiser=Optimiser(groups=_groups(method), reference_batch=BATCH, rule="linear"),
        schedule=Cosine(warmup=0.1, end=1e-5),
        texts=ShortFirst() if method.needs_texts else None,
        templates=("a {}",),
        watch=_watch(method, steps // 6),
    )


def _watch(method: Method, every: int) -> Watch:
    """The loss, and what can be judged without training anything: a joint space by zero-shot, learned categories by
    themselves."""
    half = SomeWords(ratio=0.5) if _reads_texts_alone(method) else Random(ratio=0.5)
    hide = half if _explains_what_it_shows(method) else None
    if method.joint:
        return Watch(every=every, hide=hide)
    return Watch(every=every, tasks=("classify",) if method.needs_labels else ())


def _explains_what_it_shows(method: Method) -> bool:
    """UTA and its kin, whose validation loss is measured under random halves (arXiv:2405.19009, A.3)."""
    return all(term.target.rows in {"kept", "kept+cls"} for term in method.terms.values())


def _is_tuned(method: Method) -> bool:
    """UTA's fine-tuning, whose towers agree from the start: a fixed temperature for pairs says so. It is short, and its
    image tower is that of a student."""
    likelihoods = [term.likelihood for term in method.terms.values() if term.y == "text"]
    return any(isinstance(one, Boltzmann) and one.temperature_is == "fixed" for one in likelihoods)


def _reads_texts_alone(method: Method) -> bool:
    """Whether a text tower is trained and nothing else."""
    return all(method.reads_text_alone(term) for term in method.terms.values())


def _groups(method: Method) -> dict[str, Group]:
    """Image encoders learn at 2e-3, with DINO's codes four times slower; a text tower four times slower and without
    decay, but where it learns alone."""
    coded = any(isinstance(one, Codes) for one in method.projectors.values())
    image = Group(lr=5e-4 if coded else 2e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05, clip=1.0)
    if _reads_texts_alone(method):
        return {"text": image}
    if _is_tuned(method):
        text = dataclasses.replace(image, lr=5e-5, match=("encoders.text.*",), layer_decay=0.75)
        return {"text": text, "image": dataclasses.replace(image, lr=5e-4, layer_decay=0.75)}
    text = dataclasses.replace(image, lr=5e-4, weight_decay=0.0, match=("encoders.text.*",))
    return {"text": text, "image": image} if "text" in method.encoders else {"image": image}


def _gentle(method: Method, with_texts: bool) -> Method:
    """Views that leave a picture readable at 48 pixels."""
    whole = Crop(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    mild = Crop(scale=(0.8, 1.0), flip=0.0)
    first = whole if with_texts else mild
    method = fewer(method, 2, NEAR)
    views = {
        name: dataclasses.replace(
            OTHER if name == "view2" else first, blend=view.blend, frames=None if view.frames is None else FRAMES
        )
        for name, view in method.views.items()
        if isinstance(view, Crop) and not is_local(name)
    }
    return dataclasses.replace(method, views=method.views | views)


def _model(method: Method, name: str) -> EncoderSpec:
    if name == "text":
        bare = any(
            term.y == "text" and isinstance(term.predictor, Same) and not method.reads_text_alone(term)
            for term in method.terms.values()
        )
        return dataclasses.replace(TEXT, joint=VIT.width) if bare else TEXT
    if any(part.of == "text" for asked in method.inputs.values() for part in asked.parts.values()):
        return MULTIWAY
    if any(view.frames is not None for view in method.views.values()):
        return CLIPS
    model = STUDENT if method.named(Frozen) else VIT
    if _is_tuned(method):
        model = dataclasses.replace(STUDENT, size=SIZE)
    if mixes(method):
        model = dataclasses.replace(model, pool="mean")  # a mix is pooled over each image's own rows
    if any(isinstance(one, Second) for one in method.projectors.values()):
        model = dataclasses.replace(model, class_tokens=2)
    return dataclasses.replace(model, stem="patch") if _asks_for_hidden(method) else model


def mixes(method: Method) -> bool:
    """Whether an input shows two images at once."""
    return any(asked.mix is not None for asked in method.inputs.values())


def _asks_for_hidden(method: Method) -> bool:
    """Whether a term explains hidden cells: then no pixel of theirs may leak through a convolution."""
    hides = any(part.hide is not None for asked in method.inputs.values() for part in asked.parts.values())
    explained = {"hidden", "all", "all+cls"}
    return mixes(method) or (hides and any(term.target.rows in explained for term in method.terms.values()))


def _small(method: Method) -> Method:
    """Small decoders and quick averages in place of a paper's; everything else is the row's own."""
    lean: dict[str, PredictorSpec] = {
        "decoder": DECODER,
        "relative": RELATIVE,
        "prompting": PROMPTING,
        "quantised": QUANTISED,
        "latent": LATENT,
    }
    encoders = {name: _follows(role) for name, role in method.encoders.items()}
    terms = {
        name: dataclasses.replace(
            term,
            predictor=_thin(_placed(lean.get(term.predictor.kind, term.predictor), term.predictor)),
            likelihood=_short(term.likelihood),
        )
        for name, term in method.terms.items()
    }
    projectors = {name: _narrow(one) for name, one in method.projectors.items()}
    return dataclasses.replace(method, encoders=encoders, terms=terms, projectors=projectors)


def _placed(small: PredictorSpec, row: PredictorSpec) -> PredictorSpec:
    """A small decoder that places its rows as the row's own does."""
    if isinstance(small, Decoder) and isinstance(row, Decoder):
        return dataclasses.replace(small, positions=row.positions, pooled=row.pooled)
    return small


def _narrow(projector: ProjectorSpec) -> ProjectorSpec:
    if isinstance(projector, Mlp):
        return dataclasses.replace(projector, hidden=min(projector.hidden, 512), out=min(projector.out, 256))
    if isinstance(projector, Codes):
        return dataclasses.replace(projector, hidden=256, bottleneck=64, codes=1024)
    if isinstance(projector, Second):
        return projector
    return dataclasses.replace(projector, heads=2)


def _thin(predictor: PredictorSpec) -> PredictorSpec:
    if isinstance(predictor, MLP) and predictor.hidden is not None:
        return dataclasses.replace(predictor, hidden=min(predictor.hidden, 512))
    return predictor


def _short(likelihood: LikelihoodSpec) -> LikelihoodSpec:
    """A queue that is shorter than the data, few prototypes, and a target that stays as sharp as it begins: with small
    batches DINO's codes are used alike, and nothing is told, once it is softer (docs/log.md)."""
    if isinstance(likelihood, Boltzmann) and likelihood.over == "queue":
        return dataclasses.replace(likelihood, size=min(likelihood.size, 4096))
    if isinstance(likelihood, Prototypes):
        return dataclasses.replace(likelihood, count=min(likelihood.count, 128))
    if isinstance(likelihood, Centred) and likelihood.target_start is not None:
        sharp = likelihood.target_start
        return dataclasses.replace(likelihood, target_temperature=sharp, target_start=None, target_warmup=0.0)
    return likelihood


def _follows(role: EncoderRole) -> EncoderRole:
    """An average of constant momentum would hardly move in a thousand steps: it follows a hundred steps behind. One
    of none is the student itself."""
    constant = isinstance(role, Ema) and role.momentum == role.end > 0
    return dataclasses.replace(role, momentum=0.99, end=0.99) if constant else role
