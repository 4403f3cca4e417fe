"""The verbs about what frozen teachers answer: plan, teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from tyro.conf import Positional

from onestage.cli.verb import Settings, Verb


@final
@dataclass(frozen=True)
class Plan(Verb):
    """What a run will cost: bytes, time and the teacher's share in each way of serving it, memory, break-even. A few
    steps are measured on this machine, or modelled for a kind of GPU.
    """

    recipe: Positional[str]
    """a name (onestage ls recipes) or a YAML file"""
    data: str | None = None
    """the training data"""
    teacher: str | None = None
    """the frozen teacher, where the method has one"""
    gpus: int = 1
    """how many"""
    gpu: str | None = None
    """a kind that is not at hand: h200, h100 or a100"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(
            api.plan(self.recipe, data=self.data, teacher=self.teacher, gpus=self.gpus, gpu=self.gpu, settings=settings)
        )
        return 0


@final
@dataclass(frozen=True)
class Teach(Verb):
    """Cut several views of every picture and write them with the teacher's answers into a folder; typed again after an
    interruption, it goes on. Then: onestage pretrain ... --serving.mode "{kind: store, folder: DIR}"
    """

    recipe: Positional[str]
    """a name (onestage ls recipes) or a YAML file"""
    out: str
    """the folder of the store"""
    views: int
    """views of each picture"""
    data: str | None = None
    """the training data"""
    teacher: str | None = None
    """the frozen teacher: a run, open_clip:..., timm:... or hf:... (onestage ls teachers)"""
    codec: Literal["int8", "fp16"] = "int8"
    """one byte a value, or two"""
    shard_mb: float = 256.0
    """size of a shard in 10^6 bytes, about"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        from onestage import api

        api.teach(
            self.recipe,
            views=self.views,
            out=self.out,
            data=self.data,
            teacher=self.teacher,
            codec=self.codec,
            shard_mb=self.shard_mb,
            settings=settings,
        )
        return 0
