"""The walk over a tar archive: equal to the standard library's on sound files, and never silent on damaged ones."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from onestage.data.tar import Damage, Member, walk
from shards import captioned, offsets, write_tar

FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def walked(path: Path) -> list[Member | Damage]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(walk(descriptor, path.stat().st_size))
    finally:
        os.close(descriptor)


def members(path: Path) -> list[Member]:
    return [one for one in walked(path) if isinstance(one, Member)]


def damage(path: Path) -> list[Damage]:
    return [one for one in walked(path) if isinstance(one, Damage)]


@pytest.mark.parametrize("form", FORMS)
def test_members_lie_where_the_standard_library_finds_them(tmp_path: Path, form: int) -> None:
    long = "folder/" * 12 + "name.png"
    names = ["a.png", "b.txt", long, "deep/c.d.json"]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 300 + ".txt", "übermaß/日本.png"]
    path = write_tar(tmp_path / "a.tar", [(name, bytes([number]) * 700 * number) for number, name in enumerate(names)])
    with tarfile.open(path) as tar:
        theirs = [Member(one.name, one.offset_data, one.size) for one in tar.getmembers()]
    assert walked(path) == theirs


def test_a_shard_of_the_world_reads_as_the_standard_library_reads_it(test_data: Path) -> None:
    path = next((test_data / "cc12m_shard").glob("*.tar"))
    with tarfile.open(path) as tar:
        theirs = [Member(one.name, one.offset_data, one.size) for one in tar.getmembers() if one.isfile()]
    assert walked(path) == theirs and len(theirs) == 96


def test_links_devices_and_sparse_files_are_reported_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind, name in (
            (tarfile.DIRTYPE, "folder"),
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.LNKTYPE, "hard.png"),
            (tarfile.CHRTYPE, "device.png"),
            (tarfile.GNUTYPE_SPARSE, "sparse.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        member = tarfile.TarInfo("../outside.png")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    assert [one.name for one in members(tmp_path / "a.tar")] == ["../outside.png"]
    found = damage(tmp_path / "a.tar")
    assert [one.reason.split("'")[1] for one in found] == ["link.png", "hard.png", "device.png", "sparse.png"]


def test_a_pax_size_counts_and_a_pax_sparse_file_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.png")
        member.size, member.pax_headers = 3, {"GNU.sparse.major": "1", "comment": "x"}
        tar.addfile(member, io.BytesIO(b"abc"))
        member = tarfile.TarInfo("b.png")
        member.size, member.pax_headers = 3, {"comment": "y" * 2000}
        tar.addfile(member, io.BytesIO(b"abc"))
    assert [one.name for one in members(tmp_path / "a.tar")] == ["b.png"]
    assert len(damage(tmp_path / "a.tar")) == 1


@pytest.mark.parametrize("form", FORMS)
def test_random_bytes_over_a_header_lose_that_member_alone(tmp_path: Path, form: int) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 8), form)
    names = [name for name, _ in captioned(0, 8)]
    content = bytearray(path.read_bytes())
    at = offsets(path)["000004.png"]
    content[at : at + 512] = np.random.default_rng(0).bytes(512)
    path.write_bytes(content)
    assert [one.name for one in members(path)] == [name for name in names if name != "000004.png"]
    assert [(one.offset, one.reason) for one in damage(path)] == [(at, "no valid header")]


def test_an_archive_cut_between_members_or_inside_one_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(0, 8))
    whole, at = path.read_bytes(), offsets(path)["000004.png"]
    path.write_bytes(whole[:at])
    assert len(members(path)) == 8 and "no end mark" in damage(path)[0].reason
    path.write_bytes(whole[: at + 520])
    assert len(members(path)) == 8 and "'000004.png' is cut short" in damage(path)[0].reason
    path.write_bytes(whole[: at + 100])
    assert len(members(path)) == 8 and len(damage(path)) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"<html>" * 1000, bytes(10240), b"\xff" * 5120])
def test_what_is_no_archive_has_no_members(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert members(path) == []
    assert bool(damage(path)) == (content != bytes(10240)), "an empty archive is sound"


def test_sizes_that_lie_end_nowhere(tmp_path: Path) -> None:
    """8 EB in base 256, and digits that are none: the header is passed over, the next member is found."""
    path = write_tar(tmp_path / "a.tar", captioned(0, 3))
    whole, at = path.read_bytes(), offsets(path)["000001.png"]
    for field in (b"\x80" + (2**63).to_bytes(11, "big"), b"\xff" * 12, b"99999999999\0", b"-1\0".ljust(12, b"\0")):
        header = bytearray(whole[at : at + 512])
        header[124:136] = field
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(whole[:at] + header + whole[at + 512 :])
        assert [one.name for one in members(path)] == [name for name, _ in captioned(0, 3) if name != "000001.png"]
        assert len(damage(path)) == 1
