"""The kinds of data that are named by a prefix, such as `masks:IMAGES,MASKS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from onestage.data import coco, hub, masks, parquet, statements, videos, voc, vqa, yolo
from onestage.data.keys import Keys
from onestage.roles import Source


class Kind(NamedTuple):
    """What a user types, what it is in one line, and what opens it: given the whole text, prefix included."""

    form: str
    about: str
    open: Callable[[str], Source]
    keyed: Callable[[str, Keys], Source] | None = None
    """The same under other keys than the usual ones; None for a kind that has none."""


KINDS: dict[str, Kind] = {
    masks.PREFIX: Kind(
        masks.FORM, "a folder of images and one of PNG masks (class numbers), paired by name", masks.open_masks
    ),
    coco.PREFIX: Kind(coco.FORM, coco.ABOUT, coco.open_coco),
    yolo.PREFIX: Kind(yolo.FORM, yolo.ABOUT, yolo.open_yolo),
    voc.PREFIX: Kind(voc.FORM, voc.ABOUT, voc.open_voc),
    vqa.PREFIX: Kind(vqa.FORM, vqa.ABOUT, vqa.open_vqa),
    statements.NLVR2: Kind(statements.NLVR2_FORM, statements.NLVR2_ABOUT, statements.open_nlvr2),
    statements.SNLI_VE: Kind(statements.SNLI_VE_FORM, statements.SNLI_VE_ABOUT, statements.open_snli_ve),
    videos.PREFIX: Kind(videos.FORM, videos.ABOUT, videos.open_videos),
    hub.PREFIX: Kind(
        hub.FORM,
        "a data set of the hub, or a folder that its library saved, through datasets",
        hub.open_hub,
        hub.open_hub,
    ),
    parquet.PREFIX: Kind(
        parquet.FORM,
        "Parquet files with the bytes of images, as the hubs write them",
        parquet.open_parquet,
        parquet.open_parquet,
    ),
}
"""By prefix, the colon included."""


def kind_of(text: str) -> Kind | None:
    """The kind whose prefix a text begins with; None where there is none."""
    return next((kind for prefix, kind in KINDS.items() if text.startswith(prefix)), None)
