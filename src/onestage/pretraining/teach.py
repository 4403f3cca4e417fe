"""Precomputing the answers of a recipe's teachers: `onestage teach`."""

from __future__ import annotations

from pathlib import Path

import torch

from onestage.distributed import rank, world
from onestage.engine.progress import Progress
from onestage.engine.together import together
from onestage.objective import Frozen
from onestage.pretraining.lines import Say
from onestage.pretraining.prepare import default_workers, load_teachers, open_data, setting_of, share_cores
from onestage.pretraining.resolve import resolve
from onestage.pretraining.spec import Recipe
from onestage.roles import Source
from onestage.spec import UserError
from onestage.teachers.serving.codec import Codec
from onestage.teachers.serving.live import Portions
from onestage.teachers.serving.manifest import Manifest
from onestage.teachers.serving.serve import Setting, manifest_of
from onestage.teachers.serving.teach import fill, found


def teach(recipe: Recipe, views: int, out: Path, codec: Codec, shard_mb: float, say: Say = print) -> Path:
    """Cut `views` views of every picture, and write them with the teachers' answers into a store, or go on with it.

    Raises:
        UserError: when the recipe has no teacher, or the folder holds something else.
    """
    if views < 1 or shard_mb <= 0:
        raise UserError(f"teach: --views {views} and --shard-mb {shard_mb:g} must be above 0")
    if not recipe.method.named(Frozen):
        raise UserError(f"teach: method {recipe.method.name} learns from no teacher")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = open_data(recipe)
    teachers = load_teachers(recipe, device)
    resolved = resolve(recipe, dict(teachers))
    setting = setting_of(resolved, teachers, len(source), device)
    if not setting.seen:
        raise UserError(f"teach: method {recipe.method.name} asks its teacher for words alone, which are not stored")
    manifest = _manifest(setting, source, views, codec, shard_mb, out)
    workers = default_workers() if recipe.workers is None else recipe.workers
    share_cores(workers)
    portions = Portions(setting.teachers, recipe.serving, recipe.precision, device)
    with Progress(manifest.samples) as progress:
        bad = fill(
            out, manifest, source, portions, workers, lambda missing: missing[rank() :: world()], progress.update
        )
    together(lambda: None)  # nobody says that it is finished before it is
    skipped = f"; {bad} pictures of these do not decode" if bad else ""
    say(f"{out}: {manifest.samples} samples with {views} views each in {manifest.shards} shards{skipped}")
    say(f'use it: onestage pretrain {recipe.name} ... --serving.mode "{{kind: store, folder: {out}}}"')
    return out


def _manifest(setting: Setting, source: Source, views: int, codec: Codec, megabytes: float, out: Path) -> Manifest:
    """The manifest of the folder; one process writes it where it is new."""
    size = views * sum(shape.size(codec) for shape in setting.answered().values())
    each = min(max(int(megabytes * 1e6 / size), 1), setting.samples)
    wanted = manifest_of(setting, codec, source.name, source.fingerprint(), each, views)
    if rank() == 0:
        together(lambda: found(out, wanted))
    else:
        together(lambda: None)
    return found(out, wanted)
