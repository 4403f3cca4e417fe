"""A recipe or a chain from what a user gives: a name, a file or a value, and settings beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onestage import recipes as named
from onestage.objective import Frozen
from onestage.pretraining import Chain, Recipe, Stage, is_chain, read_chain, read_run
from onestage.recipes import chains
from onestage.spec import UserError, from_plain, parse_scalar, replace_leaf, to_plain

Given = str | Path | Recipe
ELSEWHERE = ("workers", "accumulate")
"""Settings of a recipe that the machine at hand decides: with others the same is learned."""


def make_recipe(
    recipe: Given,
    *,
    data: str | None = None,
    val: str | None = None,
    teacher: str | None = None,
    init: str | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe by name, file or value, with what was given beside it.

    Raises:
        UserError: when it is unknown, a setting leads nowhere, or a value does not fit.
    """
    base = recipe if isinstance(recipe, Recipe) else named.recipe(str(recipe))
    plain = to_plain(base)
    given = {"data": data, "val": val, "init": init}
    plain |= {name: value for name, value in given.items() if value is not None}
    if steps is not None:
        plain |= {"steps": steps, "epochs": None}
    if teacher is not None:
        plain["teachers"] = _teachers(base, teacher)
    for path, value in (settings or {}).items():
        replace_leaf(plain, path, parse_scalar(value) if isinstance(value, str) else value)
    return from_plain(Recipe, plain)


def _teachers(recipe: Recipe, reference: str) -> dict[str, str]:
    frozen = recipe.method.named(Frozen)
    if not frozen:
        raise UserError(f"--teacher {reference}: method {recipe.method.name} learns from no teacher")
    if len(frozen) > 1:
        raise UserError(
            f"--teacher: this method has the teachers {', '.join(frozen)}; set each with --teachers.NAME REF"
        )
    return {frozen[0]: reference}


def moved(
    *, data: str | None = None, val: str | None = None, settings: Mapping[str, Any] | None = None
) -> Callable[[Recipe], Recipe]:
    """The recipe of a run that goes on elsewhere: only what changes nothing that it learns may be given anew.

    Raises:
        UserError: for a setting that would.
    """
    wrong = [path for path in settings or {} if path not in ELSEWHERE]
    if wrong:
        raise UserError(
            f"--resume: a run goes on as it was started, so --{wrong[0]} cannot be given anew; only where its data are "
            f"now (--data, --val) and how a machine makes its steps ({', '.join(f'--{name}' for name in ELSEWHERE)})"
        )
    return lambda recipe: make_recipe(recipe, data=data, val=val, settings=settings)


def make_chain(
    name: str,
    *,
    data: str | None = None,
    val: str | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Chain:
    """A chain by name or file, with what was given beside it. `STAGE.path.to.setting` changes one stage, `probed` the
    probes, every other setting all stages; `steps` is the length of the whole chain.

    Raises:
        UserError: when it is unknown, a setting leads nowhere, or a value does not fit.
    """
    made = chains.chain(name)
    given = dict(settings or {})
    if "probed" in given:
        made = from_plain(Chain, to_plain(made) | {"probed": parse_scalar(str(given.pop("probed")))})
    stages = [stage.name for stage in made.stages]

    def changed(stage: Stage) -> Recipe:
        own = {
            path.removeprefix(f"{stage.name}."): value
            for path, value in given.items()
            if path.partition(".")[0] not in stages or path.startswith(f"{stage.name}.")
        }
        return make_recipe(stage.recipe, data=data, val=val, settings=own)

    made = made.each(changed)
    return made if steps is None else made.lasting(steps)


def refuse_for_chain(name: str, **given: object) -> None:
    """What belongs to one recipe and not to a chain.

    Raises:
        UserError: where something of it was given.
    """
    for option, value in given.items():
        if value is not None:
            raise UserError(
                f"--{option}: {name} is a chain, whose stages take weights and teachers from one another; "
                + (
                    f"for several seeds: onestage bench table --rows m3i,{name.removesuffix('_tiny')} --seeds 0,1,2"
                    if option == "seeds"
                    else f"leave --{option} out"
                )
            )


def runs_of(folder: Path) -> list[Path]:
    """A run, or the runs of a chain that were begun.

    Raises:
        UserError: when the folder is neither, or no stage was begun.
    """
    if not is_chain(folder):
        read_run(folder)
        return [folder]
    begun = [run for run in read_chain(folder).folders(folder) if (run / "run.yaml").is_file()]
    if not begun:
        raise UserError(f"{folder}: no stage of this chain was begun yet; onestage pretrain --resume {folder}")
    return begun
