"""What the ring gives back is what was asked for, or nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from onestage.spec import UserError
from onestage.teachers.serving.ring import Ring

SIZE = 24


def records(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).unsqueeze(1).expand(-1, SIZE)


def keys(*values: int) -> Tensor:
    return torch.tensor([[value, -value] for value in values])


def places(*values: int) -> Tensor:
    return torch.tensor(values)


def test_what_was_written_is_read_by_its_key_alone(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "a.ring", SIZE, 4)
    assert not ring.read(places(0, 3), keys(1, 2)).found.any()
    ring.write(places(0, 3), keys(1, 2), records(10, 20))
    read = ring.read(places(3, 0, 0, 1), keys(2, 1, 3, 1))
    assert read.found.tolist() == [True, True, False, False]
    assert read.records[:2, 0].tolist() == [20, 10]
    ring.write(places(0), keys(3), records(30))
    assert ring.read(places(0, 0), keys(1, 3)).found.tolist() == [False, True], "a new view takes the old one's place"


def test_what_has_no_place_is_never_found(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "a.ring", SIZE, 2)
    ring.write(places(1, 2, 9), keys(1, 2, 3), records(1, 2, 3))
    assert ring.read(places(1, 2, 9), keys(1, 2, 3)).found.tolist() == [True, False, False]
    assert (tmp_path / "a.ring").stat().st_size == 2 * (SIZE + 16)


def test_another_process_reads_what_this_one_wrote(tmp_path: Path) -> None:
    first, second = (Ring(tmp_path / "a.ring", SIZE, 4) for _ in range(2))
    first.write(places(2), keys(5), records(7))
    assert second.read(places(2), keys(5)).found.tolist() == [True]
    first.remove()
    assert list(tmp_path.iterdir()) == []
    assert second.read(places(2), keys(5)).records[0, 0] == 7, "what is mapped stays readable"


def test_a_file_of_another_size_is_made_anew(tmp_path: Path) -> None:
    Ring(tmp_path / "a.ring", SIZE, 4).write(places(0), keys(1), records(1))
    assert not Ring(tmp_path / "a.ring", SIZE, 5).read(places(0), keys(1)).found.any()


def test_a_full_disk_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"No space left.*gigabytes.*folder"):
        Ring(tmp_path / "a.ring", SIZE, 4)
    assert list(tmp_path.iterdir()) == []
