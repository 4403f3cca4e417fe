"""The fault test: 2,000 samples of which 60 are damaged in eight ways. All of them are found and named, each once, with
its reason; every good sample arrives once an epoch; and only the slots of the bad ones hold others."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loading import drawn, made, sized
from onestage.data import Quarantine, first_good, open_source
from onestage.data import decode as decoding
from onestage.data import shards as shards_room
from onestage.data.quarantine import WATCHED
from onestage.engine.loader import batches
from onestage.roles import Sample
from onestage.spec import UserError
from shards import png, write_tar
from small import BATCH

SAMPLES, SHARDS, EVERY = 2000, 4, 33
BOUND = 20_000


def noise(kind: str, side: int) -> bytes:
    coded = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(coded, kind)
    return coded.getvalue()


def bomb() -> bytes:
    """A PNG whose header says 50,000 x 50,000."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
WAYS: dict[str, tuple[str, bytes, bool, str]] = {
    "truncated": ("jpg", noise("JPEG", 32)[:700], True, "image file is truncated"),
    "zero-byte": ("jpg", b"", True, "the file is empty"),
    "HTML": ("jpg", HTML, True, "not an image"),
    "one pixel": ("png", png(0, side=1), True, "1 x 1 pixels: a spacer or a rule, not a picture"),
    "bomb": ("png", bomb(), True, "too many pixels"),
    "too many bytes": ("png", noise("PNG", 100), True, f"bytes, more than {BOUND}"),
    "no caption": ("png", png(9), False, "it has no text"),
    "wrong key": ("jpgg", png(9), True, "it has no picture (its members: jpgg, txt)"),
}
"""How a sample is damaged: its member, whether it has a text, and what is said of it."""
PLANTED = {number: list(WAYS)[order % len(WAYS)] for order, number in enumerate(range(7, 60 * EVERY, EVERY))}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, each = tmp_path_factory.mktemp("damaged"), SAMPLES // SHARDS
    for shard in range(SHARDS):
        members = []
        for number in range(shard * each, (shard + 1) * each):
            kind, content, has_text, _ = WAYS.get(PLANTED.get(number, ""), ("png", png(number), True, ""))
            members.append((f"{number:06}.{kind}", content))
            members += [(f"{number:06}.txt", f"picture {number}".encode())] * has_text
        write_tar(folder / f"{shard:03}.tar", members)
    return f"{folder}/{{000..003}}.tar"


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a picture; the real bound would take 200 MB of disk a sample."""
    monkeypatch.setattr(decoding, "MAX_BYTES", BOUND)
    monkeypatch.setattr(shards_room, "MAX_BYTES", BOUND)


def listed(file: Path) -> dict[int, str]:
    """The reason of every sample in the list, by its number."""
    rows = {(row["key"], row["reason"]) for row in map(json.loads, file.read_text().splitlines())}
    assert len({key for key, _ in rows}) == len(rows), "one reason each"
    return {int(key.rpartition("/")[2]): reason for key, reason in rows}


def as_planted(found: dict[int, str]) -> None:
    assert set(found) == set(PLANTED) and len(found) == 60
    assert all(WAYS[PLANTED[number]][3] in reason for number, reason in found.items())
    assert min(Counter(PLANTED.values()).values()) >= 3


def test_every_damaged_sample_is_named_once_and_every_good_one_arrives_once(damaged: str, tmp_path: Path) -> None:
    source, file = open_source(damaged), tmp_path / "q.jsonl"
    assert len(source) == SAMPLES
    data = made(source, sized("clip"), quarantine=Quarantine(file))
    arrived: Counter[str | None] = Counter()
    for number in range(SAMPLES):
        wanted, text = data.stream.at(number).sample, drawn(data, number)[0].text
        if wanted in PLANTED:
            assert int(str(text).split()[1]) not in PLANTED, "a bad slot holds a good sample"
        else:
            assert text == f"picture {wanted}", "a good slot holds its own"
            arrived[text] += 1
    assert len(arrived) == SAMPLES - 60 and set(arrived.values()) == {1}
    assert len(file.read_text().splitlines()) == 60, "each once, though drawn again in the place of others"
    as_planted(listed(file))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_find_the_same_in_another_epoch(damaged: str, tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    data = made(open_source(damaged), sized("clip"), quarantine=Quarantine(file))
    steps = SAMPLES // BATCH
    assert sum(len(batch.number) for batch in batches(data, steps, 2 * steps, 2)) == SAMPLES
    as_planted(listed(file))
    assert Quarantine(file).count() == 60


def test_data_that_go_bad_in_the_midst_of_a_run_stop_it_with_a_summary(damaged: str, tmp_path: Path) -> None:
    """As when most of a disk cannot be read any more: after many good draws, the last ones count."""
    source, quarantine = open_source(damaged), Quarantine(tmp_path / "q.jsonl")
    seen = 0

    def use(sample: Sample) -> str:
        nonlocal seen
        seen += 1
        if seen > 1000 and seen % 10 < 7:
            raise decoding.BadSample(f"cannot be read (error {seen % 5})")
        return sample.key

    with pytest.raises(UserError, match="samples drawn cannot be used") as caught:
        for index in range(1100, 100, -1):
            first_good(source, index, 0, use, quarantine)
        for index in range(1000):
            first_good(source, index, 0, use, quarantine)
    told = str(caught.value)
    assert f"of the last {WATCHED[1]} samples drawn" in told and " x cannot be read (error " in told
    assert " for others; last: " in told and told.endswith(f"All of them are listed in {tmp_path}/q.jsonl")
    assert 1000 < seen < 2000
