"""Pictures of a run for its report: nearest captions, heat maps of a word, and the coverage of its hiding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from onestage.data import open_source
from onestage.evaluation import heat_map
from onestage.pretraining.directory import read_run
from onestage.report import Pictures
from onestage.roles import Sample, Source
from onestage.spec import UserError
from onestage.teachers import load
from onestage.views import Resize

SHOWN = 8
CAPTIONS = 200
"""Captions that compete for each picture."""


def pictures_of(run: Path, data: str | None) -> Pictures | None:
    """Pictures from a run's validation data; None where the run shares no space with texts or has no captions."""
    recipe = read_run(run)
    named = data or recipe.val or recipe.data
    if named is None:
        return None
    try:
        model, source = load(str(run)), open_source(named)
    except UserError:
        return None
    if not (model.has_joint and model.has_text and source.has_texts):
        return None
    samples = _spread(source, SHOWN)
    pixels = torch.stack([_pixels(sample, model.size) for sample in samples]).float() / 255
    tokens = model.tokens(pixels, "joint")
    captions = sorted({text for sample in _spread(source, CAPTIONS) for text in sample.texts})
    texts = functional.normalize(model.text(captions).float(), dim=-1)
    best = (functional.normalize(tokens.pooled.float(), dim=-1) @ texts.T).topk(min(3, len(captions))).indices
    words = [sample.texts[0] for sample in samples]
    queries = model.text(words).float()
    maps = [heat_map(tokens.rows[i].float(), queries[i], tokens.grid).numpy() for i in range(len(samples))]
    return Pictures(
        images=[np.asarray((image.permute(1, 2, 0) * 255).round().byte()) for image in pixels],
        truths=[sample.texts[-1] for sample in samples],
        captions=[[captions[index] for index in row] for row in best.tolist()],
        words=words,
        heat_maps=maps,
    )


def _spread(source: Source, count: int) -> list[Sample]:
    step = max(len(source) // count, 1)
    return [source[index] for index in list(range(0, len(source), step))[:count]]


def _pixels(sample: Sample, size: int) -> torch.Tensor:
    view = Resize(size=size)
    plan = view.plan(np.random.default_rng(0), *sample.picture.size)
    return view.resized(sample.picture.decode(), plan)
