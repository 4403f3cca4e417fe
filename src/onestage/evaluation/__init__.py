"""How good frozen features are, one file a protocol: from zero-shot to linear segmentation."""

from __future__ import annotations

from collections.abc import Mapping

from onestage.evaluation.classify import Classify
from onestage.evaluation.dense_probe import DenseProbe
from onestage.evaluation.features import Features, Pool, embed_texts, features, pooled
from onestage.evaluation.heatmap import heat_map
from onestage.evaluation.knn import Knn
from onestage.evaluation.linear import Linear
from onestage.evaluation.retrieval import Retrieval
from onestage.evaluation.zero_shot import ZeroShot, class_weights, clip_templates

EVALUATIONS: dict[
    str, type[ZeroShot] | type[Retrieval] | type[Knn] | type[Linear] | type[Classify] | type[DenseProbe]
] = {
    "zero-shot": ZeroShot,
    "retrieval": Retrieval,
    "knn": Knn,
    "linear": Linear,
    "classify": Classify,
    "dense-probe": DenseProbe,
}
"""Every evaluation by the name that users type; the first line of its docstring says what it is."""


def result(
    task: str, model: str, data: str, metrics: Mapping[str, float], samples: int, seconds: float, version: str
) -> dict[str, object]:
    """An evaluation as it is written to JSON.

    Args:
        model: the reference of the model.
        data: the data it was judged on, as it was typed.
        metrics: numbers by name; shares are in [0, 1].
        seconds: how long it took, with loading.
        version: of this package.
    """
    return {
        "task": task,
        "model": model,
        "data": data,
        "metrics": dict(metrics),
        "samples": samples,
        "seconds": round(seconds, 3),
        "version": version,
    }


__all__ = [
    "EVALUATIONS",
    "Classify",
    "DenseProbe",
    "Features",
    "Knn",
    "Linear",
    "Pool",
    "Retrieval",
    "ZeroShot",
    "class_weights",
    "clip_templates",
    "embed_texts",
    "features",
    "heat_map",
    "pooled",
    "result",
]
