"""The multi-stage pipelines that M3I's slides name (arXiv:2211.09807, introduction), as declared chains of rows.

How long each stage is relative to the others is not published in one unit, so stages share the length equally; every
stage has the same backbone, so that what changes between two probes is the stage alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from onestage.encoders import EncoderSpec, Multiway, Vit
from onestage.methods import METHODS
from onestage.objective import COLUMNS, term_rows
from onestage.pretraining import Chain, Recipe, Stage, Watch
from onestage.recipes import recipe
from onestage.recipes.describe import columns, length
from onestage.recipes.tiny import STEPS, VIT, Budget, tiny
from onestage.spec import UserError, from_plain, read_yaml, suggest, to_plain


class Link(NamedTuple):
    """A stage of a declared chain: its name, its row of the table, and what it takes from the stage before."""

    name: str
    row: str
    takes: tuple[Literal["weights", "teacher"], ...] = ()


class Declared(NamedTuple):
    """A published pipeline."""

    cite: str
    links: tuple[Link, ...]
    note: str
    """What differs from what was published, or is assumed."""


PIXELS = Link("pixels", "simmim")
CLASSES = Link("classes", "supervised", ("weights",))

CHAINS: dict[str, Declared] = {
    "chain_swinv2_g": Declared(
        "SwinV2-G, arXiv:2111.09883 sec. 4.2: masked image modelling of pixels (SimMIM), then image classification",
        (PIXELS, CLASSES),
        "a ViT in place of SwinV2",
    ),
    "chain_fd_swinv2_g": Declared(
        "FD-SwinV2-G, arXiv:2205.14141 sec. 4: SwinV2-G's two stages, then dense distillation",
        (PIXELS, CLASSES, Link("distilled", "fd", ("teacher",))),
        "a ViT in place of SwinV2; the student of the last stage starts anew",
    ),
    "chain_beit3": Declared(
        "BEiT-3, arXiv:2208.10442 sec. 2: CLIP, dense distillation of it (its tokenizer), then masked data modelling",
        (
            Link("clip", "clip"),
            Link("distilled", "vqkd", ("teacher",)),
            Link("masked", "beit3", ("weights", "teacher")),
        ),
        "the attention and the vision experts of the last stage start from the tokenizer's encoder, of which the paper "
        "does not speak",
    ),
}
"""Every chain by its name; `NAME_tiny` is one that two cores can run."""


def names() -> list[str]:
    """Every chain that has a name."""
    return [f"{name}_tiny" for name in CHAINS]


def is_named(text: str) -> bool:
    """Whether a word means a chain (the names of all begin with `chain_`), or a YAML file that holds one."""
    if text.endswith((".yaml", ".yml")) and Path(text).is_file():
        plain = read_yaml(Path(text))
        return isinstance(plain, dict) and "stages" in plain
    return text.startswith("chain_")


def chain(name: str) -> Chain:
    """A chain by its name, `NAME_tiny[:smoke]`, or from a YAML file whose stages name recipes or hold them.

    Raises:
        UserError: when there is none, with the nearest name.
    """
    if name.endswith((".yaml", ".yml")):
        return _from_file(Path(name))
    base, _, budget = name.partition(":")
    if base not in names() or budget not in {"", "smoke", "demo"}:
        near = suggest(name, names()) or "."
        raise UserError(f"there is no chain '{name}'{near} Type onestage ls chains to see them all.")
    return tiny_chain(base.removesuffix("_tiny"), "smoke" if budget == "smoke" else "demo")


def tiny_chain(name: str, budget: Budget) -> Chain:
    """A declared chain as long in all as one row's tiny recipe."""
    declared = CHAINS[name]
    stages = tuple(Stage(name=link.name, recipe=_tiny(name, link, budget), takes=link.takes) for link in declared.links)
    cite = f"{declared.cite} (here: {declared.note})"
    return Chain(name=f"{name}_tiny", cite=cite, stages=stages).lasting(STEPS[budget])


def _tiny(name: str, link: Link, budget: Budget) -> Recipe:
    made = tiny([(1.0, METHODS[link.row])], budget)
    models = {key: _backbone(model) for key, model in made.models.items()}
    return dataclasses.replace(made, name=f"{name}_tiny/{link.name}", models=models, watch=Watch())


def _backbone(model: EncoderSpec) -> EncoderSpec:
    if isinstance(model, Multiway):
        return dataclasses.replace(model, size=VIT.size, width=VIT.width or model.width)
    return dataclasses.replace(VIT, stem="patch") if isinstance(model, Vit) else model


def _from_file(file: Path) -> Chain:
    plain = read_yaml(file)
    if not isinstance(plain, dict) or not isinstance(plain.get("stages"), list):
        raise UserError(f"{file}: expected a chain: name, cite and a list of stages")
    for stage in plain["stages"]:
        if isinstance(stage, dict) and isinstance(stage.get("recipe"), str):
            stage["recipe"] = to_plain(recipe(stage["recipe"]))
    return from_plain(Chain, plain, str(file))


def chain_line(made: Chain) -> str:
    """A chain in a few words."""
    return " -> ".join(stage.name for stage in made.stages) + f"; {made.cite}"


def chain_text(made: Chain) -> str:
    """The stages of a chain, what each takes, and the table of their terms."""
    stages = [
        (f"{number}_{stage.name}", stage.recipe.method.name, length(stage.recipe), " and ".join(stage.takes) or "-")
        for number, stage in enumerate(made.stages, start=1)
    ]
    terms = [row for stage in made.stages for row in term_rows(stage.recipe.method)]
    parts = [
        columns([("stage", "method", "length", "takes from the one before"), *stages]),
        columns([COLUMNS, *terms]),
        f"cite: {made.cite}",
    ]
    return "\n\n".join(parts)
