"""Clips: which frames are seen, how they are cut, hidden, encoded and explained, from a source to an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from loading import drawn, made
from onestage.data import open_source
from onestage.data.decode import Pixels as Still
from onestage.encoders import Vit
from onestage.engine.cut import cut
from onestage.evaluation.features import features, see
from onestage.layers.normalise import in_unit
from onestage.methods import METHODS
from onestage.methods.masked import MAE, VIDEO_MAE
from onestage.objective import Method
from onestage.ops import patchify_tubes, tubes
from onestage.pretraining.prepare import stills
from onestage.pretraining.run import start
from onestage.roles import BadSample, Plan, Sample, Source
from onestage.sample import Clip
from onestage.targets import Pixels
from onestage.teachers import load
from onestage.types import Geometry, Piece, Tokens, View, Wanted
from onestage.views import Crop, Frames, Resize, Tube
from small import small

FRAMES, SIDE = 4, 16
PLACE = np.empty((3, 2 * SIDE, SIDE), np.uint8)
STUDENT = Vit(
    arch="vit_tiny_patch16_224",
    size=SIDE,
    patch=8,
    width=32,
    depth=2,
    heads=2,
    pool="mean",
    frames=FRAMES,
    tubelet=2,
    class_tokens=0,
    positions="sines",
)


class Steps(Clip):
    """Ten seconds of noise that is lighter in every second."""

    start, stop, size = 5.0, 15.0, (40, 24)

    def span(self) -> tuple[float, float]:
        return self.start, self.stop

    def middle(self) -> float:
        return 10.0

    def times(self) -> tuple[float, ...]:
        return tuple(self.start + number for number in range(10))

    def decode(self, times: Sequence[float], short: int | None = None) -> np.ndarray:
        noise = np.random.default_rng(0).integers(0, 100, (24, 40, 3))
        return np.stack([(noise + 15 * int(time - self.start)).astype(np.uint8) for time in times])


class Films(Source):
    """Clips and stills in turns."""

    name, has_clips = "films", True

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        clip = Steps()
        return Sample(key=str(index), picture=Still(clip.decode([10.0])[0]), clip=None if index % 2 else clip)

    def fingerprint(self) -> str:
        return "films"


def clip_method(frames: Frames | None = None) -> Method:
    view = dataclasses.replace(VIDEO_MAE.views["view1"], size=SIDE, frames=frames or Frames(count=FRAMES))
    return dataclasses.replace(VIDEO_MAE, views={"view1": view})


@pytest.mark.parametrize(
    ("frames", "moment", "times"),
    [
        (Frames(count=2), 0.0, (7.5, 12.5)),
        (Frames(count=2), 1.0, (7.5, 12.5)),
        (Frames(count=4, seconds=2.0), 0.0, (5.25, 5.75, 6.25, 6.75)),
        (Frames(count=4, seconds=2.0), 0.5, (9.25, 9.75, 10.25, 10.75)),
        (Frames(count=4, seconds=2.0), 1.0, (13.25, 13.75, 14.25, 14.75)),
        (Frames(count=2, seconds=99.0), 0.3, (7.5, 12.5)),
    ],
)
def test_frames_are_the_middles_of_equal_parts_of_a_window(
    frames: Frames, moment: float, times: tuple[float, ...]
) -> None:
    assert frames.times(moment, 5.0, 15.0) == pytest.approx(times)


def test_a_tube_hides_the_same_cells_in_every_frame() -> None:
    """176 of 196 cells in each of 8 (VideoMAE), each as often as any other."""
    hide, rng = Tube(ratio=0.9), np.random.default_rng(0)
    masks = np.stack([hide.draw(rng, (8 * 14, 14)).reshape(8, 196) for _ in range(400)])
    assert (masks == masks[:, :1]).all()
    assert set(masks[:, 0].sum(axis=1)) == {176} and hide.count((8 * 14, 14)) == 8 * 176
    assert np.abs(masks[:, 0].mean(axis=0) - 176 / 196).max() < 0.07
    assert Tube(ratio=0.99).count((3, 3)) == 8, "one cell is shown"


def test_patches_of_tubelets_equal_loops() -> None:
    clips = torch.rand(2, 3, FRAMES * SIDE, SIDE)
    found = patchify_tubes(clips, 8, 2).reshape(2, 2, 2, 2, 2, 8, 8, 3)
    channels = tubes(clips, 2)
    frames = clips.reshape(2, 3, FRAMES, SIDE, SIDE)
    for pair in range(2):
        for row in range(2):
            for column in range(2):
                for frame in range(2):
                    cut = frames[:, :, 2 * pair + frame, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                    assert torch.equal(found[:, pair, row, column, frame], cut.permute(0, 2, 3, 1))
        for channel in range(3):
            for frame in range(2):
                shown = channels[:, 2 * channel + frame, pair * SIDE : (pair + 1) * SIDE]
                assert torch.equal(shown, frames[:, channel, 2 * pair + frame])


def test_every_channel_of_a_patch_is_brought_to_mean_0_and_variance_1() -> None:
    target = Pixels(rows="all", norm="channel", normalise="none").build(8, 2)
    clips = torch.rand(2, 3, FRAMES * SIDE, SIDE)
    cells = torch.arange(8).expand(2, -1)
    rows = target(seen(clips), Wanted(cells, (4, 2), None), None).rows
    patches = patchify_tubes(clips, 8, 2).double().unflatten(-1, (128, 3))
    for channel in range(3):
        values = patches[..., channel]
        slow = (values - values.mean(-1, keepdim=True)) / (values.std(-1, keepdim=True) + 1e-6)
        torch.testing.assert_close(rows.unflatten(-1, (128, 3))[..., channel].double(), slow, rtol=1e-4, atol=1e-5)
    assert target.width == rows.shape[-1] == 384


def test_a_sample_is_cut_frame_by_frame_and_a_still_stands() -> None:
    """All frames by one plan; a picture without a clip is every frame."""
    method = clip_method(Frames(count=FRAMES, seconds=4.0))
    data = made(Films(), method, grids={"student": (4, 2)})
    moments = set()
    for number in range(16):
        one, places = drawn(data, number)
        plan, view = one.plans["view1"], method.views["view1"]
        sample = Films()[data.stream.at(number).sample]
        frames = places["view1"].reshape(3, FRAMES, SIDE, SIDE)
        shown = [sample.picture.decode()] * FRAMES
        if sample.clip is not None:
            moments.add(plan.moment)
            shown = list(sample.clip.decode(Frames(count=FRAMES, seconds=4.0).times(plan.moment, 5.0, 15.0)))
        for found, pixels in zip(frames.swapaxes(0, 1), shown, strict=True):
            alone = np.empty((3, SIDE, SIDE), np.uint8)
            view.cut(pixels, plan, alone)
            assert np.array_equal(found, alone)
        hidden = one.hidden["kept/image"].reshape(2, 4)
        assert (hidden[0] == hidden[1]).all() and hidden.sum() == 6
    assert len(moments) > 4


def encoder(model: Vit = STUDENT) -> tuple[torch.nn.Module, Tensor]:
    torch.manual_seed(0)
    return model.build(frozenset({"drop"})).eval(), torch.rand(2, 3, FRAMES * SIDE, SIDE)


def seen(pixels: Tensor) -> View:
    return View(pixels, Geometry(torch.zeros(len(pixels), 4), torch.zeros(len(pixels), dtype=torch.bool)))


def look(made: torch.nn.Module, pixels: Tensor, hidden: Tensor | None = None) -> Tokens:
    if hidden is None:
        return made({"image": Piece(seen(pixels))})
    return made({"image": Piece(seen(pixels), hidden=hidden, hides=int(hidden[0].sum()), mode="drop")})


def test_rows_know_their_frame() -> None:
    made_, clips = encoder()
    tokens = look(made_, clips)
    assert tokens.grid == (4, 2) and tokens.place.frame[0].tolist() == [0] * 4 + [1] * 4
    hidden = torch.tensor([[True, False, False, True, False, True, True, False]] * 2)
    assert look(made_, clips, hidden).place.frame[0].tolist() == [0, 0, 1, 1]


def test_frames_that_shrink_on_the_way_are_a_bad_sample() -> None:
    class Shrinking(Steps):  # says that it is larger than it is
        size = (80, 48)

    plan = Plan(box=(10, 10, 30, 30))
    view = Crop(size=SIDE, frames=Frames(count=2))
    with pytest.raises(BadSample, match="several sizes"):
        cut(Still(np.zeros((48, 80, 3), np.uint8)), Shrinking(), {"v": view}, {"v": plan}, {"v": PLACE}, "pillow")


def test_the_evaluation_view_of_a_clip_has_its_frames() -> None:
    view = Resize(size=SIDE, frames=Frames(count=FRAMES))
    moving, still = (see(Films()[index], view).pixels for index in range(2))
    assert moving.shape == still.shape == (3, FRAMES * SIDE, SIDE)
    assert torch.equal(still, torch.cat([still[:, :SIDE]] * FRAMES, dim=1))
    means = moving.float().reshape(3, FRAMES, -1).mean(dim=(0, 2))
    assert (means.diff() > 20).all(), "it grows lighter"


def test_a_run_on_clips_is_judged_on_clips_and_on_stills(tmp_path: Path) -> None:
    start(small("video_mae", data="scenes-clips", steps=2), tmp_path / "run", [])
    model = load(str(tmp_path / "run"))
    clips, stills = (features(model, open_source(name), "raw", None, 8) for name in ("scenes-clips", "scenes"))
    assert clips.rows.shape == stills.rows.shape == (8, 32) and model.frames == 4
    alone = torch.stack([see(open_source("scenes")[2500 * number], Resize(size=32)).pixels for number in range(8)])
    torch.testing.assert_close(model.tokens(in_unit(alone), "raw").rows.mean(dim=1), stills.rows)


def test_stills_in_place_of_clips_are_told() -> None:
    told = stills(METHODS["video_mae"], open_source("scenes"))
    assert told.startswith("scenes:train has no clips: each picture is read as one in which nothing moves")
    assert not stills(METHODS["video_mae"], open_source("scenes-clips")) and not stills(MAE, open_source("scenes"))


def test_the_built_in_clips_are_read() -> None:
    source = open_source("scenes-clips")
    data = made(source, clip_method(), grids={"student": (4, 2)})
    _, places = drawn(data, 0)
    frames = places["view1"].reshape(3, FRAMES, SIDE, SIDE)
    assert any(not np.array_equal(frames[:, 0], frames[:, number]) for number in range(1, FRAMES))
