"""Cutting the views of a sample to their places: of its picture, or frame by frame of its clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onestage.data.fast import Decoder, decode
from onestage.engine.buffers import Places
from onestage.roles import BadSample, Picture, Plan
from onestage.sample import Clip
from onestage.views import Frames, ViewSpec


def cut(
    picture: Picture,
    clip: Clip | None,
    views: Mapping[str, ViewSpec],
    plans: Mapping[str, Plan],
    places: Places,
    decoder: Decoder,
) -> None:
    """Cut the planned views of a sample. One without a clip is a still: its picture is every frame.

    Args:
        views: among them those that have plans.

    Raises:
        BadSample: when the picture or the clip does not decode.
    """
    of_clip = {name: frames for name in plans if clip is not None and (frames := views[name].frames) is not None}
    still = [name for name in plans if name not in of_clip]
    if still:
        rows = max(views[name].rows(plans[name]) for name in still)
        pixels, scale = decode(picture, decoder, min(plans[name].shrink for name in still), rows)
        for name in still:
            plan = plans[name] if scale == 1 else replace(plans[name], scale=scale)
            first, *others = _frames(places[name])
            views[name].cut(pixels, plan, first)
            for other in others:
                other[...] = first
    for name, frames in of_clip.items():
        assert clip is not None, "there are views of it"
        for pixels, place in zip(_decoded(clip, frames, plans[name]), _frames(places[name]), strict=True):
            views[name].cut(pixels, plans[name], place)


def _decoded(clip: Clip, frames: Frames, plan: Plan) -> np.ndarray:
    found = clip.decode(frames.times(plan.moment, *clip.span()))
    top, left, height, width = plan.box
    if top + height > found.shape[1] or left + width > found.shape[2]:
        raise BadSample("its frames are of several sizes")
    return found


def _frames(place: np.ndarray) -> list[np.ndarray]:
    """The squares of a view that lie one below another."""
    count = place.shape[1] // place.shape[2]
    return [place] if count == 1 else np.split(place, count, axis=1)
