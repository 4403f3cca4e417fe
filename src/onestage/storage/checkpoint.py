"""Checkpoints: one directory a step, safetensors and JSON only, never a pickle, whole at every instant.

    checkpoints/step_00000500/{<stem>.safetensors ..., loop.json, manifest.json}      checkpoints/LATEST

A save writes into `.tmp-step_...`, syncs every file, writes the manifest (sizes and SHA-256) last, renames
the directory and moves `LATEST`; only then may older ones go. So whatever kills the process, what bears the
name of a step is complete. Readers believe the manifests alone: `LATEST` is for people and scripts, because
a process may die between the rename and it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onestage.spec import UserError

SCHEMA = 1
MAX_JSON_BYTES = 4 << 20
_LOOP, _MANIFEST, _LATEST = "loop.json", "manifest.json", "LATEST"
_STEP = re.compile(r"step_(\d{8,})(\.old)?")
"""`.old` is a checkpoint that another of the same step is just replacing."""
_STEM = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What was saved: the number of steps done, tensors (CPU) by file stem and name, the loop's state."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    keep: int,
    protect: Collection[int] = (),
) -> Path:
    """Write the checkpoint of a step; replaces an earlier one of the same step.

    Args:
        folder: the run's `checkpoints` directory, made if need be. One process writes there at a time.
        tensors: for each file stem (`model`, `optimiser`, `ema`), tensors by name, on any device.
        meta: plain JSON values, given back by `load`.
        keep: how many of the newest to keep, at least 1.
        protect: steps that retention spares (the best).

    Raises:
        UserError: when the disk is full or may not be written. Older checkpoints are untouched then.
    """
    if keep < 1:
        raise UserError(f"keep: {keep} checkpoints cannot be kept; give at least 1")
    name = f"step_{step:08d}"
    temporary = folder / f".tmp-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        _fill(temporary, step, tensors, meta)
        _put_in_place(temporary, folder / name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{folder / name}: the checkpoint cannot be written ({error}). "
            "Free some space or mend the permissions, then resume; older checkpoints are untouched."
        ) from error
    write_atomic(folder / _LATEST, name + "\n")
    _retain(folder, step, keep, protect)
    return folder / name


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that verifies, or None. Damaged ones are passed over with a warning."""
    for path in reversed(_checkpoints(folder)):
        try:
            _verify(path, None)
        except UserError as error:
            _log.warning("passed over a checkpoint: %s", error)
        else:
            return path
    return None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint directory after checking every byte of it against its manifest.

    Raises:
        UserError: when a file is missing, damaged or not of this format, naming it.
    """
    step, names = _verify(path, None)
    stems = [name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")]
    meta = _read_json(path / _LOOP)["meta"]
    return Checkpoint(step, {stem: _read_safetensors(path, stem) for stem in stems}, meta)


def read_tensors(path: Path, stem: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, checking that file alone; raises as `load` does."""
    _verify(path, f"{stem}.safetensors")
    return _read_safetensors(path, stem)


def write_atomic(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old text or the new one, even after a crash.

    Raises:
        UserError: when the disk is full or may not be written. The old text stands then.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        _write(temporary, text)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error}). Free some space or mend the permissions.") from error


def _sweep(folder: Path) -> None:
    """Remove what a killed save left behind."""
    replaced = [old for old in folder.glob("step_*.old") if old.with_suffix("").exists()]
    for path in [*folder.glob(".tmp-*"), *replaced]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fill(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """All files of a checkpoint, the manifest last, everything synced."""
    folder.mkdir()
    for stem, named in tensors.items():
        if not _STEM.fullmatch(stem):
            raise ValueError(f"{stem!r} cannot be a file stem of a checkpoint")
        path = folder / f"{stem}.safetensors"
        save_file(_apart(named), path)
        _sync(path)
    _write(folder / _LOOP, json.dumps({"step": step, "meta": dict(meta)}))
    files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
    _write(folder / _MANIFEST, json.dumps({"schema": SCHEMA, "step": step, "files": files}, indent=1))
    _sync(folder)


def _apart(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous on the CPU, no two tensors sharing memory (tied weights are written twice)."""
    seen: set[int] = set()
    result = {}
    for name, tensor in named.items():
        tensor = tensor.detach().to("cpu").contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename, moving an earlier checkpoint of the same step aside first, under a name that `latest` knows."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        _discard(old)
        path.rename(old)
    temporary.rename(path)
    _sync(path.parent)
    _discard(old)


def _retain(folder: Path, step: int, keep: int, protect: Collection[int]) -> None:
    """Remove what is older than the `keep` newest up to `step`. Failing here only warns."""
    older = [path for path in _checkpoints(folder) if _step_of(path) <= step]
    try:
        for path in older[:-keep]:
            if _step_of(path) not in protect:
                _discard(path)
    except OSError as error:
        _log.warning("an old checkpoint could not be removed: %s", error)


def _discard(path: Path) -> None:
    """Remove a checkpoint, losing its name first so that half a one is never seen."""
    if path.exists():
        doomed = path.with_name(f".tmp-gone-{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first, what is being replaced before what replaces it."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _STEP.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: (_step_of(path), not path.name.endswith(".old")))


def _step_of(path: Path) -> int:
    return int(path.name.removesuffix(".old").removeprefix("step_"))


def _verify(path: Path, only: str | None) -> tuple[int, list[str]]:
    """Check a checkpoint, or one file of it, against its manifest; its step and the names of its files."""
    manifest = _read_json(path / _MANIFEST)
    step, files = manifest.get("step"), manifest.get("files")
    if manifest.get("schema") != SCHEMA or not isinstance(step, int) or not isinstance(files, dict):
        raise _damaged(path / _MANIFEST, f"not a manifest of schema {SCHEMA}")
    for name in [only] if only else dict.fromkeys((_LOOP, *files)):
        if name not in files or Path(name).name != name:
            raise UserError(f"{path}: no file '{name}' in its manifest, which lists {', '.join(files)}")
        try:
            found = _fingerprint(path / name)
        except OSError as error:
            raise _damaged(path / name, str(error)) from None
        if found != files[name]:
            raise _damaged(path / name, f"{found} is not what was saved, {files[name]}")
    if only is None and _read_json(path / _LOOP).get("step") != step:
        raise _damaged(path / _MANIFEST, f"its step {step} is not that of {_LOOP}")
    return step, list(files)


def _fingerprint(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise _damaged(path, f"more than {MAX_JSON_BYTES} bytes")
        value = json.loads(content)
    except OSError as error:
        raise _damaged(path, str(error)) from None
    except (ValueError, RecursionError):
        raise _damaged(path, "not valid JSON") from None
    if not isinstance(value, dict):
        raise _damaged(path, "not a JSON object")
    return value


def _read_safetensors(path: Path, stem: str) -> dict[str, Tensor]:
    file = path / f"{stem}.safetensors"
    try:
        return load_file(file, device="cpu")
    except (OSError, SafetensorError) as error:
        raise _damaged(file, str(error)) from None


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: damaged or incomplete checkpoint ({why}). Use another step of the run, or move "
        f"{path.parent.name} away and resume from the one before."
    )


def _write(path: Path, text: str) -> None:
    data = text.encode()
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{path.name}: {len(data)} bytes of text, more than {MAX_JSON_BYTES} would not be read back")
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Sync a file or a directory: safetensors does neither."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
