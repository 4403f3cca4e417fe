"""f_psi: how target rows are guessed. The closed union of what a term's predictor may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.predictors.aligned import Aligned, AlignedPredictor, Block, BlockPredictor
from onestage.predictors.decoder import Decoder, DecoderPredictor
from onestage.predictors.drawn import Drawn, DrawnPredictor
from onestage.predictors.latent import Latent, LatentPredictor
from onestage.predictors.linear import Linear, LinearPredictor
from onestage.predictors.mlp import MLP, MLPPredictor
from onestage.predictors.prompting import Prompting, PromptingPredictor
from onestage.predictors.quantised import Quantised, QuantisedPredictor
from onestage.predictors.relative import Relative, RelativePredictor
from onestage.predictors.same import Same, SamePredictor

OfBlocks = Aligned | Block
"""Predictors that read outputs of single blocks; `of` says of how many of the last."""
PredictorSpec = Annotated[
    Linear | MLP | Decoder | Relative | Aligned | Block | Prompting | Quantised | Same | Latent | Drawn,
    Discriminator("kind"),
]

__all__ = [
    "MLP",
    "Aligned",
    "AlignedPredictor",
    "Block",
    "BlockPredictor",
    "Decoder",
    "DecoderPredictor",
    "Drawn",
    "DrawnPredictor",
    "Latent",
    "LatentPredictor",
    "Linear",
    "LinearPredictor",
    "MLPPredictor",
    "OfBlocks",
    "PredictorSpec",
    "Prompting",
    "PromptingPredictor",
    "Quantised",
    "QuantisedPredictor",
    "Relative",
    "RelativePredictor",
    "Same",
    "SamePredictor",
]
