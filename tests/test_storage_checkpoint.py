"""The checkpoint protocol: round trips, retention, damage, a full disk."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage.spec import UserError
from onestage.storage import checkpoint
from onestage.storage.checkpoint import latest, load, read_tensors, save, write_atomic


def tensors(step: int) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(step)
    model = {"weight": torch.randn(7, 5, generator=generator), "count": torch.tensor(step)}
    return {"model": model, "optimiser": {"weight.exp_avg": torch.randn(7, 5, generator=generator)}}


def put(folder: Path, step: int, keep: int = 3, protect: tuple[int, ...] = ()) -> Path:
    return save(folder, step, tensors(step), {"seen": step * 8, "best": None}, keep, protect)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(found: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> bool:
    return found.keys() == expected.keys() and all(
        found[stem].keys() == expected[stem].keys()
        and all(torch.equal(found[stem][name], expected[stem][name]) for name in expected[stem])
        for stem in expected
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    path = put(folder, 500)
    assert names(folder) == ["LATEST", "step_00000500"]
    assert (folder / "LATEST").read_text() == "step_00000500\n"
    assert names(path) == ["loop.json", "manifest.json", "model.safetensors", "optimiser.safetensors"]
    assert latest(folder) == path
    found = load(path)
    assert found.step == 500
    assert found.meta == {"seen": 4000, "best": None}
    assert equal(found.tensors, tensors(500))
    assert torch.equal(read_tensors(path, "model")["weight"], tensors(500)["model"]["weight"])
    with pytest.raises(UserError, match=r"no file 'ema\.safetensors'"):
        read_tensors(path, "ema")


def test_shared_strided_and_odd_tensors(tmp_path: Path) -> None:
    weight = torch.randn(4, 6)
    named = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.t(),
        "row": weight[1],
        "image": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "learned": torch.nn.Parameter(torch.randn(2)),
    }
    path = save(tmp_path, 1, {"model": named, "ema": {}}, {}, keep=1)
    found = load(path).tensors
    assert found["ema"] == {}
    assert found["model"].keys() == named.keys()
    for name, tensor in named.items():
        assert found["model"][name].dtype == tensor.dtype
        assert torch.equal(found["model"][name], tensor), name


def test_retention_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400, 500):
        put(tmp_path, step, keep=2, protect=(200,))
    assert names(tmp_path) == ["LATEST", "step_00000200", "step_00000400", "step_00000500"]
    put(tmp_path, 600, keep=1)
    assert names(tmp_path) == ["LATEST", "step_00000600"]
    with pytest.raises(UserError, match="keep: 0"):
        put(tmp_path, 700, keep=0)


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    put(tmp_path, 100)
    path = save(tmp_path, 100, tensors(7), {"second": True}, keep=3)
    assert names(tmp_path) == ["LATEST", "step_00000100"]
    assert load(path).meta == {"second": True}
    assert equal(load(path).tensors, tensors(7))


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest(tmp_path / "absent") is None
    (tmp_path / "LATEST").write_text("step_00000100\n")
    (tmp_path / ".tmp-step_00000100").mkdir()
    assert latest(tmp_path) is None


@pytest.mark.parametrize("file", ["model.safetensors", "optimiser.safetensors", "loop.json", "manifest.json"])
def test_every_damaged_byte_is_noticed(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    older, newest = put(tmp_path, 100), put(tmp_path, 200)
    whole = (newest / file).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (newest / file).write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert latest(tmp_path) == older, place
        assert "step_00000200" in caplog.text
        with pytest.raises(UserError, match="step_00000200"):
            load(newest)


@pytest.mark.parametrize("file", ["model.safetensors", "loop.json", "manifest.json"])
def test_a_missing_or_cut_file_is_named(tmp_path: Path, file: str) -> None:
    older, newest = put(tmp_path, 100), put(tmp_path, 200)
    whole = (newest / file).read_bytes()
    (newest / file).write_bytes(whole[:-1])
    with pytest.raises(UserError, match=file):
        load(newest)
    (newest / file).unlink()
    with pytest.raises(UserError, match=file):
        load(newest)
    assert latest(tmp_path) == older


def test_a_hostile_manifest_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, 100)
    manifest = json.loads((path / "manifest.json").read_text())
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes((path / "model.safetensors").read_bytes())
    stolen = {**manifest["files"], "../outside.safetensors": manifest["files"]["model.safetensors"]}
    for change in ({"files": stolen}, {"schema": 2}, {"step": "100"}, {"step": 101}, {"files": ["model"]}):
        (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(UserError, match="manifest"):
            load(path)
    (path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"manifest\.json: .*not valid JSON"):
        load(path)
    (path / "manifest.json").write_text(" " * (checkpoint.MAX_JSON_BYTES + 1))
    with pytest.raises(UserError, match=r"manifest\.json: .*more than"):
        load(path)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("operation", ["save_file", "_sync", "_write"])
def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = put(tmp_path, 100, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, operation, no_space)
        with pytest.raises(UserError, match=r"step_00000200: .*No space left.*older checkpoints are untouched"):
            put(tmp_path, 200, keep=1)
    assert names(tmp_path) == ["LATEST", "step_00000100"]
    assert latest(tmp_path) == older
    assert latest(tmp_path) != put(tmp_path, 200, keep=1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/checkpoints"):
        put(tmp_path / "file" / "checkpoints", 1)


def test_write_atomic_keeps_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(UserError, match=r"run\.yaml: cannot be written"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.yaml"]
    write_atomic(path, "new")
    assert path.read_text() == "new"
