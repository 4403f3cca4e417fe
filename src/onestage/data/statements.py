"""`nlvr2:IMAGES,FILE.json` and `snli-ve:IMAGES,FILE.jsonl`: statements about images, and what is right to say of them.

NLVR2 has a sentence about two images, true or false: an object a line with `sentence`, `label` and `identifier`; of
`dev-850-0-2` the images are `dev-850-0-img0` and `dev-850-0-img1`, or what `left` and `right` name. (Suhr et al.,
arXiv:1811.00491.) SNLI-VE has a hypothesis about an image of Flickr30K, which contradicts, tells nothing of, or entails
it: `Flickr30K_ID`, `sentence2`, `gold_label`, and the image's own caption as `sentence1`. (Xie et al.,
arXiv:1901.06706.) Where the label is missing or `-`, people did not agree: there is no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, final

from onestage.data.annotated import fingerprint_of, needed
from onestage.data.described import json_rows
from onestage.data.entries import Strings
from onestage.data.named import Named, picture
from onestage.data.paths import paths_of
from onestage.roles import Source
from onestage.sample import Sample, Statement
from onestage.spec import UserError

NLVR2, SNLI_VE = "nlvr2:", "snli-ve:"
NLVR2_FORM, SNLI_VE_FORM = "nlvr2:IMAGES,FILE.json", "snli-ve:IMAGES,FILE.jsonl"
NLVR2_ABOUT = "NLVR2's lines of JSON: a sentence about two images, true or false"
SNLI_VE_ABOUT = "SNLI-VE's lines of JSON: a hypothesis about an image: contradiction, neutral or entailment"
TRUTH = ("false", "true")
ENTAILMENT = ("contradiction", "neutral", "entailment")


class Row(NamedTuple):
    """A line: the names an image may have, one list for each image, the statement, what is said of it, a caption."""

    key: str
    images: tuple[tuple[str, ...], ...]
    statement: str
    label: str
    caption: str


@final
class Statements(Source):
    """Statements, each with its image or two.

    Args:
        rows: for each statement a JSON list: its key, its files, it, its verdict and a caption.
    """

    def __init__(
        self, name: str, folder: Path, rows: Strings, verdicts: tuple[str, ...], captioned: bool, fingerprint: str
    ) -> None:
        self.name, self.folder, self.rows, self.verdicts = name, folder, rows, verdicts
        self.has_texts = captioned
        # Statements speak of colours, sides, and of what a crop would cut off.
        self.keeps_captions = frozenset()
        self._fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        key, files, text, verdict, caption = json.loads(self.rows[index])
        return Sample(
            key=key,
            picture=picture(self.folder, files[0]),
            second=picture(self.folder, files[1]) if len(files) > 1 else None,
            texts=(caption,) if caption else (),
            statement=Statement(text, verdict),
        )

    def fingerprint(self) -> str:
        """Hash of the file of statements, the images' names, and the sizes of a few thousand."""
        return self._fingerprint


def open_nlvr2(text: str) -> Statements:
    """A source by what a user types: nlvr2:IMAGES,FILE.json.

    Raises:
        UserError: when a path is missing, a line is in another format, or none of the images is there.
    """
    return _opened(text, text.removeprefix(NLVR2), NLVR2_FORM, _nlvr2, TRUTH)


def open_snli_ve(text: str) -> Statements:
    """A source by what a user types: snli-ve:IMAGES,FILE.jsonl.

    Raises:
        UserError: when a path is missing, a line is in another format, or none of the images is there.
    """
    return _opened(text, text.removeprefix(SNLI_VE), SNLI_VE_FORM, _snli_ve, ENTAILMENT)


def _opened(
    text: str, paths: str, form: str, read: Callable[[str, dict[str, Any]], Row], verdicts: tuple[str, ...]
) -> Statements:
    folder, file = paths_of(text, paths, form, ("folder", "file"))
    images, packed, files = Named(folder), Strings(), Strings()
    captioned = False
    try:
        for number, told in enumerate(json_rows(file), start=1):
            row = read(f"{file}, statement {number}", told)
            found = [images.file(*names) for names in row.images]
            if row.label not in {*verdicts, "-", ""}:
                raise UserError(f"{file}, statement {number}: '{row.label}' is none of {', '.join(verdicts)}")
            verdict = verdicts.index(row.label) if row.label in verdicts else None
            captioned |= bool(row.caption)
            packed.append(json.dumps((row.key or str(number), found, row.statement, verdict, row.caption)))
            for one in found:
                files.append(one)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    return Statements(text, folder, packed, verdicts, captioned, fingerprint_of(text, folder, files, [file]))


def _nlvr2(where: str, told: dict[str, Any]) -> Row:
    key = needed(where, told, "identifier", str)
    pair = key.rpartition("-")[0]
    sides = tuple(
        (Path(told[side]).stem,) if isinstance(told.get(side), str) else (f"{pair}-img{number}",)
        for number, side in enumerate(("left", "right"))
    )
    return Row(key, sides, needed(where, told, "sentence", str), str(told.get("label", "")).lower(), "")


def _snli_ve(where: str, told: dict[str, Any]) -> Row:
    image = str(needed(where, told, "Flickr30K_ID", (str, int)))
    caption = told.get("sentence1")
    return Row(
        str(told.get("pairID", "")),
        ((image.removesuffix(".jpg"),),),
        needed(where, told, "sentence2", str),
        str(told.get("gold_label", "")).lower(),
        caption.strip() if isinstance(caption, str) else "",
    )
