"""Texts to word numbers: CLIP's byte-pair tokenizer, as open_clip ships it (no download)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from onestage.types import Words


@final
class Tokenizer:
    """CLIP's tokenizer at a context length; each text is tokenized once and remembered, up to `remember` texts."""

    def __init__(self, context: int, remember: int = 100_000) -> None:
        from open_clip import SimpleTokenizer

        self.context = context
        self.remember = remember
        self._tokenizer = SimpleTokenizer(context_length=context)
        self._known: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "b t"]:
        """Word numbers, zero-padded, cut at the context length."""
        return torch.stack([self._one(text) for text in texts])

    def words(self, texts: Sequence[str]) -> Words:
        """Texts with their identities: equal texts have equal numbers, in every batch and process."""
        return Words(self(texts), torch.tensor([text_id(text) for text in texts]))

    def _one(self, text: str) -> Tensor:
        if text not in self._known:
            if len(self._known) >= self.remember:
                self._known.clear()
            self._known[text] = self._tokenizer([text])[0]
        return self._known[text]


def text_id(text: str) -> int:
    """A 63-bit number that is the same for equal texts everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
