"""Linear segmentation from frozen patch tokens: one linear layer a cell, its logits brought bilinearly to the mask.

The protocol is DINOv2's linear one (arXiv:2304.07193, section 7.4 and appendix B.4) on the evaluation view: tokens
standardised, a 1x1 layer, bilinear upsampling, cross-entropy over the pixels that are not void. Interpolating the
logits of a linear layer is the same as interpolating its features, so that the loss is learned from pixels drawn
at random over all training images, each a mean of its four nearest cells: exact, without any full-size logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from onestage.evaluation.features import Positive, Seen, batches, device_of, see, spread
from onestage.evaluation.heads import (
    Heads,
    Labelled,
    Rate,
    Standard,
    first_weights,
    held_out,
    moments,
    train_heads,
)
from onestage.evaluation.labels import check_apart, check_names
from onestage.evaluation.segments import CODES, confusion, constant, per_class, scores
from onestage.layers.normalise import in_unit
from onestage.roles import VOID, BadSample, Evaluator, Sample, Source, Teacher
from onestage.spec import UserError, spec
from onestage.views import Resize

ELEMENTS = 1 << 25
"""Full-size logits held at once."""
GIB = 1 << 30


class Cells(NamedTuple):
    """Raw tokens of images by grid cell, and the masks of their evaluation views."""

    rows: Float[Tensor, "n gh gw d"]
    masks: UInt8[Tensor, "n s s"]


class Masked(NamedTuple):
    """A sample under the evaluation view, with its mask under the same one."""

    seen: Seen
    mask: UInt8[Tensor, "s s"]


@final
@spec
class DenseProbe(Evaluator):
    """Linear segmentation: the class of every pixel from frozen patch tokens, by one linear layer.

    Metrics: `miou`, `pixel_accuracy` and `mean_class_accuracy` on the data by the chosen rate; `chance`, the mean IoU
    of the most frequent class of the training data everywhere; `rate`, `held_out_miou` by which it was chosen, and
    `held_out_miou_lr0.1` and so on for the whole sweep; `iou_NAME` of each class; `train`, `samples`,
    `skipped` (of both).
    The same seed gives the same answer.
    """

    rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    steps: Positive = 1000
    pixels: Positive = 1024
    """Pixels drawn in a step; those that are void count for nothing."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that choose the rate."""
    seed: int = 0
    memory: Annotated[float, Field(gt=0)] = 8.0
    """GiB that the features of the training images may take."""
    batch: Positive = 64
    """Images encoded at once."""
    limit: Positive | None = None
    """At most so many samples of the data, and as many of the training data, spread evenly."""

    def run(self, model: Teacher, data: Source, train: Source | None) -> dict[str, float]:
        """Judge a model by training data with masks.

        Raises:
            UserError: when one of the two has no masks, they do not fit one another, or the features do not fit into
                memory.
        """
        train = check_apart(data, train, "dense-probe", "training data with masks")
        for source in (data, train):
            if not source.has_masks:
                raise UserError(f"dense-probe: {source.name} has no masks; use scenes, or masks:IMAGES,MASKS")
        check_names("dense-probe", train.name, train.mask_classes, data.name, data.mask_classes)
        known, lost = self._cache(model, train)
        draw = torch.Generator().manual_seed(self.seed)
        held, fit = held_out(len(known.masks), self.held_out, draw)
        standard = moments(known.rows.flatten(0, 2))
        counts = torch.bincount(known.masks[fit].flatten(), minlength=VOID + 1)[:VOID]
        classes = max(int(known.masks[known.masks != VOID].max()) + 1, len(train.mask_classes))
        device = device_of(model)
        drawn = pixels(known, fit, standard, self.pixels, draw, device)
        heads = train_heads(drawn, first_weights(known.rows.shape[-1], classes, draw, device), self.rates, self.steps)
        chosen_by = self._held_out_scores(heads, standard, known, held)
        best = max(range(len(self.rates)), key=chosen_by.__getitem__)
        matrix, samples, skipped = self._judge(model, data, Heads(*(part[best] for part in heads)), standard)
        metrics = scores(matrix) | {"chance": scores(constant(matrix, int(counts.argmax())))["miou"]}
        metrics |= {"rate": self.rates[best], "held_out_miou": chosen_by[best]}
        metrics |= {f"held_out_miou_lr{rate:g}": score for rate, score in zip(self.rates, chosen_by, strict=True)}
        metrics |= per_class(matrix, data.mask_classes or train.mask_classes)
        return metrics | {"train": float(len(fit)), "samples": float(samples), "skipped": float(skipped + lost)}

    def _cache(self, model: Teacher, train: Source) -> tuple[Cells, int]:
        """The features of the training images on the CPU, and how many images cannot be used."""
        count = len(spread(len(train), self.limit))
        shape = (model.grid[1], model.grid[1], model.width("raw"))
        each = 4 * math.prod(shape) + model.size**2
        if count * each > self.memory * GIB:
            raise UserError(
                f"dense-probe: the features of {count} images of {train.name} take {count * each / GIB:.1f} GiB, more "
                f"than {self.memory:g}; use fewer of them with --limit {max(int(self.memory * GIB / each), 1)}"
            )
        known = Cells(torch.empty(count, *shape), torch.empty(count, model.size, model.size, dtype=torch.uint8))
        used, lost = 0, []
        for cells, bad in _cells(model, train, self.limit, self.batch):
            lost += bad
            if cells is not None:
                now = slice(used, used + len(cells.masks))
                known.rows[now], known.masks[now] = cells.rows.cpu(), cells.masks
                used = now.stop
        if used < 2:
            raise UserError(
                f"dense-probe: {train.name} has {used} usable images with masks, but two are needed{_why(lost)}"
            )
        return Cells(known.rows[:used], known.masks[:used]), len(lost)

    def _held_out_scores(self, heads: Heads, standard: Standard, known: Cells, held: Int[Tensor, " h"]) -> list[float]:
        """The mean IoU of every head on held-out images; 0 for one that has diverged."""
        matrices = [torch.zeros(CODES, CODES, dtype=torch.int64) for _ in self.rates]
        for some in held.split(self.batch):
            cells = Cells(known.rows[some].to(heads.weight.device), known.masks[some])
            for head, matrix in zip(zip(*heads, strict=True), matrices, strict=True):
                matrix += judged(Heads(*head), standard, cells)
        sound = heads.weight.isfinite().all(dim=(1, 2)).tolist()
        return [scores(matrix)["miou"] if good else 0.0 for matrix, good in zip(matrices, sound, strict=True)]

    def _judge(
        self, model: Teacher, data: Source, head: Heads, standard: Standard
    ) -> tuple[Int[Tensor, "codes codes"], int, int]:
        """The confusion over the data, and how many images were used and could not be."""
        matrix = torch.zeros(CODES, CODES, dtype=torch.int64)
        used, lost = 0, []
        for cells, bad in _cells(model, data, self.limit, self.batch):
            lost += bad
            if cells is not None:
                matrix += judged(head, standard, cells)
                used += len(cells.masks)
        if used == 0:
            raise UserError(f"dense-probe: {data.name} has no usable image with a mask{_why(lost)}")
        return matrix, used, len(lost)


def pixels(
    known: Cells,
    fit: Int[Tensor, " f"],
    standard: Standard,
    count: int,
    draw: torch.Generator,
    device: torch.device,
) -> Iterator[Labelled]:
    """Batches without end of pixels from all over the images `fit`: standardised features and classes.

    `count` pixels are drawn at random; those that are void are left out, so that a batch may be smaller.
    """
    side = known.masks.shape[-1]
    while True:
        image = fit[torch.randint(len(fit), (count,), generator=draw)]
        y, x = torch.randint(side, (2, count), generator=draw)
        label = known.masks[image, y, x]
        keep = label != VOID
        if keep.any():
            image, y, x = image[keep], y[keep], x[keep]
            yield Labelled(standard(between(known.rows, image, y, x, side)).to(device), label[keep].long().to(device))


def between(
    rows: Float[Tensor, "n gh gw d"],
    image: Int[Tensor, " k"],
    y: Int[Tensor, " k"],
    x: Int[Tensor, " k"],
    side: int,
) -> Float[Tensor, "k d"]:
    """Features at pixels of a square of `side`, as bilinear upsampling (corners not aligned) would give them."""
    found = rows.new_zeros(len(image), rows.shape[-1])
    for row, high in _nearest(y, rows.shape[1], side):
        for column, wide in _nearest(x, rows.shape[2], side):
            found += (high * wide)[:, None] * rows[image, row, column]
    return found


def _nearest(
    pixel: Int[Tensor, " k"], cells: int, side: int
) -> tuple[tuple[Int[Tensor, " k"], Float[Tensor, " k"]], ...]:
    """The two nearest cells of each pixel along one axis, and their weights."""
    place = ((pixel + 0.5) * cells / side - 0.5).clamp(min=0)
    low = place.long()
    share = place - low
    return (low, 1 - share), ((low + 1).clamp(max=cells - 1), share)


def judged(head: Heads, standard: Standard, cells: Cells) -> Int[Tensor, "codes codes"]:
    """The confusion of one head over some images, its logits brought bilinearly to the size of their masks.

    Args:
        head: weight (d, classes) and bias (1, classes).
    """
    side = cells.masks.shape[-1]
    standard = Standard(*(part.to(cells.rows.device) for part in standard))
    matrix = torch.zeros(CODES, CODES, dtype=torch.int64)
    step = max(ELEMENTS // (head.weight.shape[-1] * side**2), 1)
    for rows, masks in zip(cells.rows.split(step), cells.masks.split(step), strict=True):
        coarse = (standard(rows) @ head.weight + head.bias[0]).permute(0, 3, 1, 2)
        fine = functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
        matrix += confusion(masks, fine.argmax(dim=1).to(torch.uint8).cpu())
    return matrix


@torch.no_grad()
def _cells(
    model: Teacher, source: Source, limit: int | None, batch: int
) -> Iterator[tuple[Cells | None, list[BadSample]]]:
    """Raw tokens where the model computes and masks on the CPU, in batches; and what cannot be used."""
    view, device = Resize(size=model.size), device_of(model)
    for read in batches(source, spread(len(source), limit), lambda sample: _masked(sample, view), batch):
        bad = [item for item in read if isinstance(item, BadSample)]
        good = [item for item in read if not isinstance(item, BadSample)]
        if not good:
            yield None, bad
            continue
        pixels = torch.stack([item.seen.pixels for item in good]).to(device)
        tokens = model.tokens(in_unit(pixels), "raw")
        side = tokens.grid[1]  # of a clip, the squares of all frames lie one below another: it has one mask
        rows = tokens.rows.float().unflatten(1, (-1, side, side)).mean(dim=1)
        yield Cells(rows, torch.stack([item.mask for item in good])), bad


def _masked(sample: Sample, view: Resize) -> Masked:
    if sample.mask is None:
        raise BadSample("it has no mask")
    seen, mask = see(sample, view), sample.mask.decode()
    width, height = sample.picture.size
    if mask.shape != (height, width):
        raise BadSample(f"its mask is {mask.shape[1]} x {mask.shape[0]}, but the image {width} x {height}")
    cut = view.resized_mask(mask, view.plan(np.random.default_rng(0), width, height))
    if bool((cut == VOID).all()):
        raise BadSample("its mask is void all over")
    return Masked(seen, cut)


def _why(lost: list[BadSample]) -> str:
    return f" ({len(lost)} cannot be used; first: {lost[0]})" if lost else ""
