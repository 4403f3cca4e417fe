"""Where samples come from: built-in scenes and digits, folders, masks, tar shards, and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from onestage.data.adapted import Adapted
from onestage.data.builtin import Digits, Scenes, Split
from onestage.data.folders import open_folder
from onestage.data.keys import Keys
from onestage.data.kinds import KINDS, kind_of
from onestage.data.masks import open_masks
from onestage.data.mixture import Mixed, Mixture, is_mixture, parse_mixture, parts_of, stream_of
from onestage.data.options import Options, parse_options
from onestage.data.quarantine import Quarantine, first_good
from onestage.data.random import generator
from onestage.data.scene_sources import SceneClips, ScenePairs
from onestage.data.shards import is_shards, open_shards
from onestage.data.stream import Draw, Stream
from onestage.roles import Source
from onestage.spec import UserError, suggest

_DRAWN: Mapping[str, Callable[[Split], Source]] = {
    "scenes": Scenes,
    "scenes-pairs": ScenePairs,
    "scenes-clips": SceneClips,
    "digits": Digits,
}
BUILT_IN = tuple(f"{name}{split}" for name in _DRAWN for split in ("", ":train", ":test"))


def open_source(text: str) -> Source:
    """A source by what a user types: a folder, what `KINDS` names by its prefix, `shards/{000..127}.tar`,
    `scenes`, `scenes-pairs`, `scenes-clips` or `digits`, each with `:train` or `:test`, or a mixture of them such as
    `0.7*SRC+0.3*SRC`; each with options such as `SRC?text=caption` (`options.py`).

    A folder that is itself called scenes or digits is reached as ./scenes.

    Raises:
        UserError: when it is neither, or the folder cannot be used, or an option does not fit it.
    """
    if is_mixture(text):
        weights, sources = parse_mixture(text)
        return Mixture(text, [open_source(source) for source in sources], weights)
    base, options = parse_options(text)
    source = _opened(base, options.keys)
    return source if options == Options(options.keys) else Adapted(text, source, options)


def _opened(text: str, keys: Keys) -> Source:
    kind = kind_of(text)
    if any(keys) and (text in BUILT_IN or (kind is not None and kind.keyed is None)):
        raise UserError(
            f"{text}: has no keys to choose from; those with keys: captioned folders, tar shards, {_keyed()}"
        )
    if text in BUILT_IN:
        name, _, split = text.partition(":")
        return _DRAWN[name]("test" if split == "test" else "train")
    if kind is not None:
        return kind.open(text) if kind.keyed is None else kind.keyed(text, keys)
    if is_shards(text):
        return open_shards(text, keys)
    if not text or not Path(text).exists():
        forms = ", ".join(kind.form for kind in KINDS.values())
        raise UserError(
            f"'{text}': there is no such folder, and no built-in source of that name"
            f"{suggest(text, list(BUILT_IN))} "
            f"(data is a folder of images, {forms}, tar shards, "
            f"or built in: {', '.join(_DRAWN)}, each with :train or :test)"
        )
    return open_folder(Path(text), keys)


def _keyed() -> str:
    return ", ".join(kind.form for kind in KINDS.values() if kind.keyed is not None)


__all__ = [
    "BUILT_IN",
    "KINDS",
    "Digits",
    "Draw",
    "Mixed",
    "Mixture",
    "Quarantine",
    "Scenes",
    "Stream",
    "first_good",
    "generator",
    "open_folder",
    "open_masks",
    "open_source",
    "parts_of",
    "stream_of",
]
