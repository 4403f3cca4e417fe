"""Weakly-supervised pre-training: a view explains its text among the texts of the batch."""

from __future__ import annotations

from onestage.likelihood import Boltzmann, LikelihoodSpec, Sigmoid
from onestage.objective import Frozen, Input, Method, Part, Term, Trained
from onestage.predictors import Linear, Same
from onestage.predictors import PredictorSpec as Predictor
from onestage.targets import Encoded
from onestage.views import Crop, Random

WHOLE = {"image": Input(encoder="student", parts={"image": Part(of="view1")})}
AMONG_TEXTS = Boltzmann(over="batch", temperature_is="learned")


def contrastive(
    name: str,
    cite: str,
    crop: Crop,
    likelihood: LikelihoodSpec = AMONG_TEXTS,
    inputs: dict[str, Input] = WHOLE,
    predictor: Predictor | None = None,
) -> Method:
    """A row in which an image explains its text."""
    target = Encoded(encoder="text", rows="pooled")
    pair = Term(x="image", y="text", target=target, predictor=predictor or Linear(), likelihood=likelihood)
    return Method(
        name=name,
        cite=cite,
        encoders={"student": Trained(), "text": Trained()},
        views={"view1": crop},
        inputs=inputs,
        terms={"pair": pair},
    )


CLIP = contrastive("clip", "CLIP, arXiv:2103.00020 fig. 3", Crop(scale=(0.9, 1.0), flip=0.0))

SIGLIP = contrastive(
    "siglip",
    "SigLIP, arXiv:2303.15343 eq. 1; its attention-pooled row is compared as it is, so that texts are as wide as it",
    Crop(scale=(0.9, 1.0), flip=0.0),
    Sigmoid(),
    predictor=Same(),
)

FLIP = contrastive(
    "flip",
    "FLIP, arXiv:2212.00794 sec. 3 (ratio 0.5; its unmasked tuning is the row clip on its run, --init)",
    Crop(scale=(0.5, 1.0)),
    inputs={"image": Input(encoder="student", parts={"image": Part(of="view1", hide=Random(ratio=0.5), mode="drop")})},
)

UTA_TUNED = contrastive(
    "uta_tuned",
    "contrastive fine-tuning of UTA, arXiv:2405.19009 A.1 (towers that agree from the start, at a fixed temperature)",
    Crop(scale=(0.9, 1.0), flip=0.0),
    Boltzmann(over="batch", temperature=0.01, temperature_is="fixed"),
)
"""CLIP whose temperature stays where CLIP's ends: it begins with a student's image tower and its teacher's texts."""

LIT = Method(
    name="lit",
    cite="LiT, arXiv:2111.07991 sec. 3 (a locked image tower without a head, and a text tower as wide as it)",
    encoders={"text": Trained(), "teacher": Frozen()},
    views={"view1": Crop(scale=(0.9, 1.0), flip=0.0)},
    inputs={"text": Input(encoder="text", parts={"text": Part(of="text")})},
    terms={
        "pair": Term(
            x="text",
            y="view1",
            target=Encoded(encoder="teacher", rows="pooled", space="raw"),
            predictor=Same(),
            likelihood=Boltzmann(over="batch", temperature=0.1),
        )
    },
)
"""CLIP with input and target exchanged: a text explains its image. The temperature starts where the code's does."""

ROWS = (CLIP, SIGLIP, FLIP, UTA_TUNED, LIT)
