"""A view blended with that of the sample's partner: mixup and CutMix.

Mixup (arXiv:1710.09412): x = lam x_i + (1 - lam) x_j and so the label, with lam from Beta(a, a). CutMix
(arXiv:1905.04899, eq. 1 and 2): a rectangle whose sides are sqrt(1 - lam) of the view's shows the partner, and lam is
what is left of the sample once the rectangle was cut at the border. One draw holds for a batch, as in DeiT
(arXiv:2012.12877); the partner is sample i xor 1 of the global batch. Pixels are bytes and are rounded.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, final

import numpy as np
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from onestage.spec import spec
from onestage.views.colour import Probability

Alpha = Annotated[float, Field(ge=0)]


class Blending(NamedTuple):
    """How a batch is blended: the share of the sample itself, and the rectangle (top, left, bottom, right) of the
    partner, or None where all pixels are mixed."""

    share: float
    box: tuple[int, int, int, int] | None = None


@final
@spec
class Blend:
    """Mixup or CutMix; with both, one of them is drawn for each batch."""

    mixup: Alpha = 0.8
    """a of mixup's Beta(a, a); 0: never."""
    cutmix: Alpha = 1.0
    """a of CutMix's Beta(a, a); 0: never."""
    switch: Probability = 0.5
    """Probability of CutMix where both may be drawn."""

    def __post_init__(self) -> None:
        if not self.mixup and not self.cutmix:
            raise ValueError("blend: neither mixup nor cutmix is above 0; leave blend out")

    def draw(self, rng: np.random.Generator, size: int) -> Blending:
        """How one batch of views of `size` pixels is blended."""
        cut = rng.random() < self.switch if self.mixup and self.cutmix else self.cutmix > 0
        alpha = self.cutmix if cut else self.mixup
        share = float(rng.beta(alpha, alpha))
        if not cut:
            return Blending(share)
        side = int(size * (1 - share) ** 0.5)
        (top, bottom), (left, right) = (_span(int(rng.integers(size)), side, size) for _ in range(2))
        return Blending(1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def _span(centre: int, side: int, size: int) -> tuple[int, int]:
    return max(centre - side // 2, 0), min(centre + (side + 1) // 2, size)


def blend(pixels: UInt8[Tensor, "b 3 h w"], how: Blending) -> None:
    """Blend each sample with its partner, in place and pair by pair; `b` is even."""
    for first, second in zip(pixels[::2], pixels[1::2], strict=True):
        if how.box is None:
            one, two = first.float(), second.float()
            first.copy_((one * how.share + two * (1 - how.share)).round())
            second.copy_((two * how.share + one * (1 - how.share)).round())
        else:
            top, left, bottom, right = how.box
            inside = (slice(None), slice(top, bottom), slice(left, right))
            first[inside], second[inside] = second[inside].clone(), first[inside].clone()
