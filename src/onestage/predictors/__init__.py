"""f_psi: how target rows are guessed. The closed union of what a term's predictor may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.predictors.decoder import Decoder, DecoderPredictor
from onestage.predictors.linear import Linear, LinearPredictor
from onestage.predictors.mlp import MLP, MLPPredictor
from onestage.predictors.relative import Relative, RelativePredictor

PredictorSpec = Annotated[Linear | MLP | Decoder | Relative, Discriminator("kind")]

__all__ = [
    "MLP",
    "Decoder",
    "DecoderPredictor",
    "Linear",
    "LinearPredictor",
    "MLPPredictor",
    "PredictorSpec",
    "Relative",
    "RelativePredictor",
]
