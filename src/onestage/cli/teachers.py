"""The verbs about what frozen teachers answer: plan, teach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from tyro.conf import arg

from onestage.cli.verb import GivenFolder, GivenRecipe, Reference, Settings, Source, Verb


@final
@dataclass(frozen=True)
class Plan(Verb):
    """What a run will cost: bytes, time and the teacher's share in each way of serving it, memory, break-even. A few
    steps are measured on this machine, or modelled for a kind of GPU.
    """

    recipe: GivenRecipe
    """a name (onestage ls recipes) or a YAML file"""
    data: Source = None
    """the training data"""
    teacher: Reference = None
    """the frozen teacher, where the method has one"""
    gpus: Annotated[int, arg(metavar="N")] = 1
    """how many"""
    gpu: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
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

    recipe: GivenRecipe
    """a name (onestage ls recipes) or a YAML file"""
    out: GivenFolder
    """the folder of the store"""
    views: Annotated[int, arg(metavar="N")]
    """views of each picture"""
    data: Source = None
    """the training data"""
    teacher: Reference = None
    """the frozen teacher: a run, open_clip:..., timm:... or hf:... (onestage ls teachers)"""
    codec: Literal["int8", "fp16"] = "int8"
    """one byte a value, or two"""
    shard_mb: Annotated[float, arg(metavar="MB")] = 256.0
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
