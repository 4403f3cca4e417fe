"""What is said of spaces that a frozen model does not have."""

from __future__ import annotations

from typing import NoReturn

from onestage.spec import UserError


def no_categories(reference: str) -> NoReturn:
    """It has learned no categories.

    Raises:
        UserError: saying how to make one that has.
    """
    raise UserError(
        f"{reference}: it has no category head, so it cannot be asked for scores of categories. A run that learned "
        "from labels has one: onestage pretrain supervised_tiny --data SRC --out runs/supervised; so has a timm model "
        "with its classifier, timm:NAME"
    )


def no_codes(reference: str) -> NoReturn:
    """It has no code book.

    Raises:
        UserError: saying how to make one that has.
    """
    raise UserError(
        f"{reference}: it has no code book, so it cannot be asked for codes. A run of VQ-KD has one: onestage pretrain "
        "vqkd_tiny --data scenes --teacher RUN --out runs/codes; so has DALL-E's tokenizer, dalle:FILE"
    )
