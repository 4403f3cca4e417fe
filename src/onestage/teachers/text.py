"""Text towers as a frozen model has them, and as a bundle keeps them.

Every text tower can say what it is and write its own files: CLIP's, which this package builds itself, as one file of
tensors; another library's in that library's own format, to be opened by it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar, final

import torch
from jaxtyping import Float
from pydantic import Discriminator
from torch import Tensor, nn

from onestage.encoders import ClipText
from onestage.encoders.clip import ClipTextEncoder
from onestage.encoders.words import Tokenizer
from onestage.spec import UserError, spec
from onestage.storage import write_safetensors
from onestage.types import Piece, Tokens, Words

M = TypeVar("M", bound=nn.Module)
WEIGHTS = "text.safetensors"
FOLDER = "text"


@final
@spec
class LibraryText:
    """A text tower with its tokenizer in its library's own files, which stand in `bundle/text/`."""

    library: Literal["open_clip", "transformers"]
    kind: Literal["library_text"] = "library_text"


TextSpec = Annotated[ClipText | LibraryText, Discriminator("kind")]


class TextTower(ABC):
    """Texts to rows of the joint space."""

    spec: ClipText | LibraryText

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        """Embeddings, not normalised."""

    @abstractmethod
    def parts(self) -> tuple[nn.Module, ...]:
        """Its networks, to look at."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write into a bundle's folder what `spec` alone does not say."""


@final
class ClipWords(TextTower):
    """CLIP's text tower, read through CLIP's own tokenizer."""

    def __init__(self, wanted: ClipText, encoder: ClipTextEncoder) -> None:
        self.spec: ClipText | LibraryText = wanted
        self.encoder = encoder
        self.context = wanted.context
        self.tokenizer = Tokenizer(wanted.context, wanted.reads_beyond)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "b k"]:
        words = self.tokenizer.words(texts)
        device = next(self.encoder.parameters()).device
        return self.encoder({"text": Piece(view=None, words=words._replace(ids=words.ids.to(device)))}).pooled

    def words(self, words: Words) -> Tokens:
        """The row of every word in the joint space, of texts that are numbered and on its device already."""
        return self.encoder.words(Piece(None, words))

    def parts(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)

    def save(self, folder: Path) -> None:
        write_safetensors(folder / WEIGHTS, dict(self.encoder.state_dict()))


def clip_words(wanted: ClipText, weights: dict[str, Tensor], device: torch.device) -> ClipWords:
    """CLIP's text tower with these weights."""
    encoder = ClipTextEncoder(wanted)
    encoder.load_state_dict(weights)
    return ClipWords(wanted, freeze(encoder, device))


def reader(reference: str, tower: TextTower | None, context: int) -> ClipWords:
    """The text tower of a teacher, where it reads the same words as a student whose texts have so many at most.

    Raises:
        UserError: when it has none, numbers words by another tokenizer than CLIP's, or reads fewer of them.
    """
    if tower is None:
        raise UserError(f"{reference}: it has no text tower, so it cannot be asked for words")
    if not isinstance(tower, ClipWords):
        raise UserError(
            f"{reference}: its text tower does not read CLIP's words, so its rows are not those of the student's "
            "words. Use a teacher whose texts are read by CLIP's own tower: a run, CLIP, EVA-CLIP or MetaCLIP."
        )
    if tower.context < context:
        raise UserError(
            f"{reference}: it reads {tower.context} words of a text, fewer than the student's {context}; "
            f"set models.text.context: {tower.context}"
        )
    return tower


def freeze(module: M, device: torch.device) -> M:
    """A module in evaluation mode, without gradients, on its device."""
    module.requires_grad_(False).eval().to(device)
    return module
