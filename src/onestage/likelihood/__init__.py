"""P_hat(z_y | guess): the closed union of what a term's likelihood may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator

from onestage.likelihood.bernoulli import Bernoulli, BernoulliLikelihood
from onestage.likelihood.boltzmann import Boltzmann
from onestage.likelihood.categorical import Categorical, CategoricalLikelihood
from onestage.likelihood.centred import Centred, CentredLikelihood
from onestage.likelihood.contrast import BatchLikelihood
from onestage.likelihood.correlation import CorrelationLikelihood, CrossCorrelation
from onestage.likelihood.decorrelate import Decorrelation, UniGrad
from onestage.likelihood.gaussian import Gaussian, GaussianLikelihood
from onestage.likelihood.prototypes import Prototypes, PrototypesLikelihood
from onestage.likelihood.queue import QueueLikelihood
from onestage.likelihood.scores import Scores, ScoresLikelihood
from onestage.likelihood.sigmoid import Sigmoid, SigmoidLikelihood
from onestage.likelihood.table import TableLikelihood
from onestage.likelihood.tokens import TokensLikelihood

LikelihoodSpec = Annotated[
    Gaussian | Boltzmann | Bernoulli | Sigmoid | Centred | Prototypes | CrossCorrelation | Categorical | Scores,
    Discriminator("kind"),
]
RegulariserSpec = UniGrad
"""What may be added to a term to keep its targets apart."""

__all__ = [
    "BatchLikelihood",
    "Bernoulli",
    "BernoulliLikelihood",
    "Boltzmann",
    "Categorical",
    "CategoricalLikelihood",
    "Centred",
    "CentredLikelihood",
    "CorrelationLikelihood",
    "CrossCorrelation",
    "Decorrelation",
    "Gaussian",
    "GaussianLikelihood",
    "LikelihoodSpec",
    "Prototypes",
    "PrototypesLikelihood",
    "QueueLikelihood",
    "RegulariserSpec",
    "Scores",
    "ScoresLikelihood",
    "Sigmoid",
    "SigmoidLikelihood",
    "TableLikelihood",
    "TokensLikelihood",
    "UniGrad",
]
