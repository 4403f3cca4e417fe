"""P_hat(z_y | guess): the closed union of what a term's likelihood may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.likelihood.boltzmann import Boltzmann
from onestage.likelihood.contrast import BatchLikelihood
from onestage.likelihood.gaussian import Gaussian, GaussianLikelihood
from onestage.likelihood.table import TableLikelihood

LikelihoodSpec = Annotated[Gaussian | Boltzmann, Discriminator("kind")]

__all__ = [
    "BatchLikelihood",
    "Boltzmann",
    "Gaussian",
    "GaussianLikelihood",
    "LikelihoodSpec",
    "TableLikelihood",
]
