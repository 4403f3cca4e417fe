"""What the loader is compared with: torchvision's ImageFolder and WebDataset, each as its own documentation has it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from onestage.layers.normalise import STATISTICS
from onestage.spec import UserError


def image_folder(folder: Path, batch: int, workers: int, steps: int, device: torch.device) -> Iterator[int]:
    """Sizes of torchvision's batches, each a normalised float tensor on the device."""
    from torchvision.datasets import ImageFolder

    loading = DataLoader(
        ImageFolder(str(folder), _transform()), batch, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0, prefetch_factor=4 if workers else None,
    )  # fmt: skip
    endless = itertools.chain.from_iterable(itertools.repeat(loading))
    for pixels, _ in itertools.islice(endless, steps):
        yield len(pixels.to(device))


def web_dataset(shards: str, batch: int, workers: int, steps: int, device: torch.device) -> Iterator[int]:
    """Sizes of WebDataset's batches.

    Raises:
        UserError: when it is not installed.
    """
    try:
        from webdataset.compat import WebDataset
    except ImportError:
        raise UserError("bench loader compares with WebDataset: pip install 'onestage[bench]'") from None
    files = sorted(glob(shards))  # noqa: PTH207 - it takes strings
    data: Any = WebDataset(files, shardshuffle=len(files), resampled=False).shuffle(100).decode("pil")
    data = data.to_tuple("jpg", "cls").map_tuple(_transform(), int).batched(batch, partial=False).repeat()
    loading = DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    for pixels, _ in itertools.islice(iter(loading), steps):
        yield len(pixels.to(device))


def _transform() -> Any:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(*STATISTICS["imagenet"]),
        ]
    )
