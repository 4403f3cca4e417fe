"""Texts to word numbers: CLIP's byte-pair tokenizer, as open_clip ships it (no download)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from onestage.ops import is_word
from onestage.types import Words

STEP = 8
"""Places: contexts are cut to a multiple of it, so that few lengths occur."""


@final
class Tokenizer:
    """CLIP's tokenizer at a context length; each text is tokenized once and remembered, up to `remember` texts.

    Words of a batch, on each rank its own, end behind the longest text, rounded up to a multiple of `STEP`: what
    stands behind a text's end costs as much as a word. A `whole` context is kept for encoders that read what stands
    there.
    """

    def __init__(self, context: int, whole: bool = False, remember: int = 100_000) -> None:
        from open_clip import SimpleTokenizer

        self.context = context
        self.whole = whole
        self.remember = remember
        self._tokenizer = SimpleTokenizer(context_length=context)
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b t"]:
        """Word numbers, zero-padded, cut at the context length."""
        return torch.stack([self._one(text) for text in texts])

    def words(self, texts: Sequence[str]) -> Words:
        """Texts with their identities: equal texts have equal numbers, in every batch and process."""
        ids = self(texts)
        if not self.whole:
            longest = int(is_word(ids).sum(dim=1).max())
            ids = ids[:, : -(-longest // STEP) * STEP].contiguous()
        return Words(ids, torch.tensor([text_id(text) for text in texts]))

    def _one(self, text: str) -> Tensor:
        if text not in self._known:
            if len(self._known) >= self.remember:
                self._known.clear()
            self._known[text] = self._tokenizer([text])[0]
        return self._known[text]


def text_id(text: str) -> int:
    """A 63-bit number that is the same for equal texts everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
