"""The Bernoulli likelihood over a table: whether each class is in the image, each for itself (DeiT III, section 4).

With logits l_c = guess . W_c and y_c = 1 where class c is in the image, else 0 (arXiv:2204.07118),

    L = -1/C sum_c [y_c log sigmoid(l_c) + (1 - y_c) log sigmoid(-l_c)],

the mean over samples. Of a blended image both classes are there, whatever their shares.
"""

from __future__ import annotations

from typing import Literal, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from onestage.likelihood.average import full_precision, weighted_mean
from onestage.likelihood.tempered import Temper, Tempered
from onestage.spec import UserError, spec
from onestage.types import Scope, Target


@final
@spec
class Bernoulli:
    """Binary cross-entropy over the rows of a table target, averaged over classes."""

    blended: Literal["both", "shares"] = "both"
    """What is true of a blended image: both classes wholly (DeiT III), or each in its share."""
    kind: Literal["bernoulli"] = "bernoulli"

    @property
    def scope(self) -> Scope:
        """A sample's loss does not depend on the other samples."""
        return "sample"

    @property
    def regulariser(self) -> Literal["negatives"]:
        """What keeps the table spread: the classes that are not there."""
        return "negatives"

    def build(self, width: int | None = None) -> BernoulliLikelihood:
        """The loss module; rows of any width."""
        return BernoulliLikelihood(self.blended)


@final
class BernoulliLikelihood(Tempered):
    """Every guessed row of a sample against all rows of the table."""

    scope: Scope = "sample"

    def __init__(self, blended: Literal["both", "shares"]) -> None:
        super().__init__(Temper(temperature=1.0, how="fixed", max_scale=100.0, normalise="none"))
        self.blended: Literal["both", "shares"] = blended

    def forward(self, guess: Float[Tensor, "b m k"], target: Target) -> Float[Tensor, ""]:
        """The loss, in fp32.

        Raises:
            UserError: when the target is not a table, or has no labels.
        """
        if target.rows.ndim != 2 or target.identity is None:
            raise UserError("a bernoulli likelihood takes a table target, with one label per sample")
        with full_precision(guess):
            logits = self.logits(guess, target.rows)
            truth = self._truth(target).unsqueeze(1).expand_as(logits)
            losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            return weighted_mean(losses.mean(dim=-1), target.weight)

    def _truth(self, target: Target) -> Float[Tensor, "b classes"]:
        """How true each class is of each sample."""
        assert target.identity is not None, "labels were asked for"
        classes = target.rows.shape[0]
        own = functional.one_hot(target.identity.long(), classes).float()
        if target.blend is None:
            return own
        other, share = functional.one_hot(target.blend.label.long(), classes).float(), target.blend.share.unsqueeze(1)
        mixed = share * own + (1 - share) * other
        return mixed if self.blended == "shares" else (mixed > 0).float()

    def candidates(self, target: Target) -> int:
        """None: a class is a decision of its own."""
        return 0

    def after_step(self) -> None:
        """Nothing to commit."""

    def after_skip(self) -> None:
        """Nothing to forget."""
