"""`onestage bench loader`: our batches against torchvision's ImageFolder, WebDataset, and decoding and resizing alone.

All contestants cut a random resized crop of 224 pixels (8 to 100 % of the area), flip it, and end in a normalised
float batch on the device, on one thread for each process. `limit` only decodes and resizes what is planned, by the same
library, from memory, and hands nothing over: what no loader can pass.
"""

from __future__ import annotations

import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from onestage.bench.pictures import prepare
from onestage.bench.rivals import image_folder, web_dataset
from onestage.bench.timing import Rate, in_turn, rate_of, ratio, summary
from onestage.data import Quarantine, generator, open_source
from onestage.data.decode import Stored
from onestage.data.fast import Decoder, chosen, decode
from onestage.engine.loader import Batches, batches
from onestage.engine.pieces import on_device
from onestage.engine.slots import MOST
from onestage.layers.normalise import Normalise
from onestage.methods import METHODS
from onestage.roles import Picture
from onestage.spec import spec
from onestage.views import Crop

BATCH = 32
WORKERS = (0, 1, 2)
VIEW = Crop(size=224, scale=(0.08, 1.0))
COMPARED = 64
"""Crops whose pixels are compared with Pillow's."""


class Length(NamedTuple):
    """Of one measurement, in batches: those of the start, which are not counted, and all of them."""

    start: int
    steps: int


@final
@spec
class LoaderBench:
    """Batches of our loader against torchvision's ImageFolder, WebDataset, and decoding and resizing alone."""

    data: str | None = None
    """Whose pictures are used; pictures are made in a temporary folder unless given."""
    images: Annotated[int, Field(ge=1)] = 1024
    """Pictures that one measurement reads after the start (the first batch and, of each worker, as many as it has
    buffers): few show the start, not the pace."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Measurements of everything that is compared, in turn."""

    def run(self) -> Iterator[dict[str, Any]]:
        """The lines, each as soon as it is measured."""
        return measure(self.data, self.images, self.rounds)


def measure(data: str | None, images: int, rounds: int) -> Iterator[dict[str, Any]]:
    """One line for each contestant and number of workers, and one for the fidelity of our crops."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    decoder = chosen(None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fork, and of more workers than cores
            files = prepare(data, Path(folder))
            yield _machine(files, decoder, device, rounds)
            yield {"case": "loader", "psnr_db": fidelity(files, decoder), "crops": min(COMPARED, len(files))}
            for workers in WORKERS:
                start = 1 + MOST * workers
                length = Length(start, start + -(-images // BATCH))
                yield from _compared(
                    _contestants(Path(folder), files, workers, length, decoder, device), workers, rounds
                )
    finally:
        torch.set_num_threads(threads)


def _machine(files: list[bytes], decoder: Decoder, device: torch.device, rounds: int) -> dict[str, Any]:
    return {
        "case": "loader",
        "machine": platform.processor() or platform.machine(),
        "device": str(device),
        "torch": torch.__version__,
        "decoder": decoder,
        "pictures": len(files),
        "mean_bytes": round(sum(map(len, files)) / len(files)),
        "rounds": rounds,
    }


def _contestants(
    folder: Path, files: list[bytes], workers: int, length: Length, decoder: Decoder, device: torch.device
) -> dict[str, Callable[[], float]]:
    start, steps = length
    normalise = Normalise("imagenet").to(device)
    shards = str(folder / "shards" / "*.tar")

    def ours(source: str) -> float:
        return rate_of((len(normalise(pixels)) for pixels in _ours(source, workers, steps, decoder, device)), start)

    return {
        "onestage, folder": partial(ours, str(folder / "images")),
        "onestage, shards": partial(ours, shards),
        "ImageFolder": lambda: rate_of(image_folder(folder / "images", BATCH, workers, steps, device), start),
        "WebDataset": lambda: rate_of(web_dataset(shards, BATCH, workers, steps, device), start),
        "limit": lambda: rate_of(_limit(files, workers, steps, decoder), start),
    }


def _compared(contestants: dict[str, Callable[[], float]], workers: int, rounds: int) -> Iterator[dict[str, Any]]:
    found = in_turn(contestants, rounds)
    for name, rates in found.items():
        line = {"case": "loader", "workers": workers, "contestant": name, "img/s": _rounded(summary(rates), 1)}
        if name != "ImageFolder":
            line["of ImageFolder"] = _rounded(ratio(rates, found["ImageFolder"]), 3)
        if name != "limit":
            line["of limit"] = _rounded(ratio(rates, found["limit"]), 3)
        yield line


def _rounded(rate: Rate, digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in rate._asdict().items()}


def _ours(source: str, workers: int, steps: int, decoder: Decoder, device: torch.device) -> Iterator[torch.Tensor]:
    method = replace(METHODS["supervised"], views={"view1": VIEW})
    made = Batches(open_source(source), method, {}, BATCH, 0, None, Quarantine(None), None, steps, decoder=decoder)
    for batch in batches(made, 0, steps, workers):
        yield on_device(batch, device).views["view1"].pixels


@final
class _InMemory(Stored):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def read(self) -> bytes:
        return self.content


@final
class _Limit(Dataset[int]):
    """Decoding and resizing of a batch, of which only the count is handed over."""

    def __init__(self, files: list[bytes], decoder: Decoder) -> None:
        self.files = files
        self.decoder: Decoder = decoder

    def __getitem__(self, step: int) -> int:
        for number in range(step * BATCH, (step + 1) * BATCH):
            _resized(_InMemory(self.files[number % len(self.files)]), number, self.decoder)
        return BATCH


def _limit(files: list[bytes], workers: int, steps: int, decoder: Decoder) -> Iterator[int]:
    loading = DataLoader(_Limit(files, decoder), batch_size=None, sampler=range(steps), num_workers=workers)
    return iter(loading)


def _resized(picture: Picture, number: int, decoder: Decoder) -> torch.Tensor:
    """Our view of a picture, not flipped."""
    plan = VIEW.plan(generator(0, "bench", number), *picture.size)
    pixels, scale = decode(picture, decoder, plan.shrink, VIEW.rows(plan))
    return VIEW.resized(pixels, replace(plan, scale=scale))


def fidelity(files: list[bytes], decoder: Decoder) -> dict[str, float]:
    """PSNR of our crops against Pillow's decoding and antialiased bicubic, in decibels; 99 for equal pixels."""
    found = []
    for number, content in enumerate(files[:COMPARED]):
        picture = _InMemory(content)
        top, left, height, width = VIEW.plan(generator(0, "bench", number), *picture.size).box
        inside = Image.fromarray(_InMemory(content).decode()[top : top + height, left : left + width])
        wanted = np.asarray(inside.resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
        got = _resized(picture, number, decoder).permute(1, 2, 0).numpy().astype(float)
        found.append(10 * np.log10(255**2 / max(((got - wanted) ** 2).mean(), 255**2 / 10**9.9)))
    return {"mean": round(float(np.mean(found)), 1), "least": round(float(min(found)), 1)}
