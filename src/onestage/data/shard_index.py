"""The index of a tar shard: JSON beside the shard, or in the cache folder where that cannot be written.

What people may want to read is plain: counts, kinds of members, damage, classes. Columns of numbers (offsets, sizes,
crc32) are base64 of little-endian arrays, so that a million entries load in a second and lie in memory as arrays,
which loading processes share. An index whose shard has another size or time is made anew.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onestage.data.tar import Damage
from onestage.spec import UserError

FORMAT = "onestage shard index 1"
MAX_INDEX = 1 << 30
"""Bytes."""
_COLUMNS = {"first": "<i8", "kind": "<u2", "offset": "<i8", "size": "<i8", "crc32": "<u4", "label": "<i4"}


class Index(NamedTuple):
    """What a shard holds. Sample `i` has the members `first[i]` to `first[i + 1]`; its name is
    `stems[ends[i - 1] : ends[i]]`, as bytes, without a line's end between two."""

    shard: str
    bytes: int
    time: int
    kinds: tuple[str, ...]
    """Endings of members in lower case; `kind` numbers them."""
    texts: int
    """Samples that have a text."""
    classes: tuple[str, ...]
    damage: tuple[Damage, ...]
    stems: np.ndarray
    ends: np.ndarray
    first: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    crc32: np.ndarray
    label: np.ndarray
    """A number in `classes` for each sample, -1 for none."""

    @property
    def samples(self) -> int:
        return len(self.first) - 1

    def stem(self, sample: int) -> str:
        """The name that the members of a sample share."""
        start = int(self.ends[sample - 1]) if sample else 0
        return self.stems[start : int(self.ends[sample])].tobytes().decode("utf-8", "surrogateescape")


def pack_stems(stems: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Names as one array of bytes, and where each ends."""
    coded = [stem.encode("utf-8", "surrogateescape") for stem in stems]
    ends = np.cumsum([len(stem) for stem in coded], dtype=np.int64)
    return np.frombuffer(b"".join(coded), dtype=np.uint8), ends


def places(shard: Path) -> tuple[Path, Path]:
    """Where the index of a shard may lie: beside it, and in the cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(shard.resolve())).hexdigest()[:32]
    return shard.with_name(f"{shard.name}.index.json"), Path(root) / "onestage" / "indexes" / f"{name}.json"


def read_index(shard: Path) -> Index | None:
    """The ready index of a shard; None where there is none, or it is of another state of the shard.

    Raises:
        UserError: when the shard is not there.
    """
    state = state_of(shard)
    for place in places(shard):
        try:
            if not 0 < place.stat().st_size <= MAX_INDEX:
                continue
            index = _from_plain(json.loads(place.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # an index can always be made anew
            continue
        if (index.bytes, index.time) == state:
            return index
    return None


def write_index(shard: Path, index: Index) -> Path:
    """Write an index where it can be, whole or not at all.

    Raises:
        UserError: when neither place can be written.
    """
    text = json.dumps(_to_plain(index))
    reason = ""
    for place in places(shard):
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(place)
            return place
        except OSError as error:
            temporary.unlink(missing_ok=True) if os.access(place.parent, os.W_OK) else None
            reason = reason or f"{place}: {error.strerror}"
    raise UserError(f"{shard}: its index cannot be written ({reason}); set XDG_CACHE_HOME to a folder that can be")


def state_of(shard: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds.

    Raises:
        UserError: when it is not there.
    """
    try:
        status = shard.stat()
    except OSError as error:
        raise UserError(f"{shard}: cannot be read ({error.strerror})") from None
    return status.st_size, status.st_mtime_ns


def _to_plain(index: Index) -> dict[str, Any]:
    counts = np.bincount(index.kind, minlength=len(index.kinds)).tolist()
    stems = [index.stem(sample) for sample in range(index.samples)]
    columns = {name: getattr(index, name).astype(kind).tobytes() for name, kind in _COLUMNS.items()}
    return {
        "format": FORMAT,
        "shard": index.shard,
        "bytes": index.bytes,
        "time": index.time,
        "samples": index.samples,
        "texts": index.texts,
        "kinds": dict(zip(index.kinds, counts, strict=True)),
        "classes": list(index.classes),
        "damage": [damage._asdict() for damage in index.damage],
        "stems": "\n".join(stems),
        "columns": {name: base64.b64encode(column).decode() for name, column in columns.items()},
    }


def _from_plain(plain: dict[str, Any]) -> Index:
    """Raises ValueError, KeyError or TypeError where anything does not fit together."""
    if plain["format"] != FORMAT:
        raise ValueError("another format")
    try:
        columns = {
            name: np.frombuffer(base64.b64decode(plain["columns"][name], validate=True), dtype=kind)
            for name, kind in _COLUMNS.items()
        }
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    index = Index(
        str(plain["shard"]),
        int(plain["bytes"]),
        int(plain["time"]),
        tuple(map(str, plain["kinds"])),
        int(plain["texts"]),
        tuple(map(str, plain["classes"])),
        tuple(Damage(int(one["offset"]), int(one["size"]), str(one["reason"])) for one in plain["damage"]),
        *pack_stems(plain["stems"].split("\n") if plain["samples"] else []),
        **columns,
    )
    if not _fits(index):
        raise ValueError("its parts do not fit together")
    return index


def _fits(index: Index) -> bool:
    """Whether every number of an index points at something that is there."""
    members, first = len(index.offset), index.first
    same = all(len(column) == members for column in (index.kind, index.size, index.crc32))
    if not same or len(first) < 1 or len(index.ends) != index.samples or len(index.label) != index.samples:
        return False
    if first[0] != 0 or first[-1] != members or bool((np.diff(first) <= 0).any()):
        return False
    if members == 0:
        return True
    inside = bool((index.offset >= 0).all() and (index.size >= 0).all())
    inside = inside and bool((index.offset <= index.bytes - index.size).all())
    labelled = int(index.label.max()) < len(index.classes) and int(index.label.min()) >= -1
    return inside and labelled and int(index.kind.max()) < len(index.kinds)
