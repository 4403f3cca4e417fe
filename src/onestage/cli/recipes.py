"""The verbs about recipes: ls, show, cp, check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from tyro.conf import Positional, arg

from onestage.cli.verb import File, GivenRecipe, Reference, Settings, Source, Verb


@final
@dataclass(frozen=True)
class Ls(Verb):
    """What there is."""

    what: Positional[Literal["recipes", "methods", "teachers", "evaluations", "sources", "benches", "chains"]] = (
        "recipes"
    )
    """recipes by name, the table of methods, kinds of teachers, evaluations, kinds of data, benches, or chains"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(api.ls(self.what))
        return 0


@final
@dataclass(frozen=True)
class Show(Verb):
    """A recipe in full: its YAML, the table of its terms, parameters, and FLOPs per sample."""

    recipe: GivenRecipe
    """a name (onestage ls recipes) or a YAML file"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(api.show(self.recipe, settings=settings))
        return 0


@final
@dataclass(frozen=True)
class Cp(Verb):
    """Write a recipe to a YAML file that you can edit."""

    recipe: GivenRecipe
    """a name (onestage ls recipes) or a YAML file"""
    file: Positional[Annotated[str, arg(metavar="FILE")]]
    """where to write; it must not exist"""

    def run(self, settings: Settings) -> int:
        from onestage import api

        print(f"wrote {api.cp(self.recipe, self.file)}")
        return 0


@final
@dataclass(frozen=True)
class Check(Verb):
    """Find every mistake that would waste hours, in seconds, without training. Exit code 1 when there is one."""

    recipe: GivenRecipe
    """a name (onestage ls recipes) or a YAML file"""
    data: Source = None
    """the training data: a folder of images, scenes or digits"""
    val: Source = None
    """the validation data"""
    teacher: Reference = None
    """the frozen teacher, where the method has one"""
    init: Reference = None
    """a run whose weights the encoders start from"""
    classes: File = None
    """a file of class names, one a line, that zero-shot will use"""
    takes_settings = True

    def run(self, settings: Settings) -> int:
        from onestage import api

        faults = api.check(
            self.recipe,
            data=self.data,
            val=self.val,
            teacher=self.teacher,
            init=self.init,
            classes=self.classes,
            settings=settings,
        )
        for fault in faults:
            print(f"- {fault}")
        print(f"{len(faults)} found" if faults else "nothing found: ready to train")
        return 1 if faults else 0
