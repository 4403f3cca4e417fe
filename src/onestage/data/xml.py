"""Small XML files as plain trees. A document type is refused, so nothing is expanded and nothing else is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import final
from xml.parsers import expat

from onestage.sample import BadSample

MAX_DEPTH = 64


@final
class Element:
    """A tag with its text and the tags inside it."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.said: list[str] = []
        self.inside: list[Element] = []

    @property
    def content(self) -> str:
        """Its text, without the spaces around it."""
        return "".join(self.said).strip()

    def all(self, tag: str) -> Iterator[Element]:
        """The tags of a name right inside it."""
        return (one for one in self.inside if one.tag == tag)

    def first(self, path: str) -> Element | None:
        """The first at a path such as `size/width`; None where there is none."""
        found: Element | None = self
        for tag in path.split("/"):
            found = None if found is None else next(found.all(tag), None)
        return found

    def text(self, path: str) -> str:
        """The text at a path.

        Raises:
            BadSample: when there is none; it says which tags are there.
        """
        found = self.first(path)
        if found is None or not found.content:
            there = ", ".join(dict.fromkeys(one.tag for one in self.inside)) or "none"
            raise BadSample(f"<{self.tag}> has no {path} (there are: {there})")
        return found.content

    def number(self, path: str) -> float:
        """The finite number at a path.

        Raises:
            BadSample: when there is none.
        """
        text = self.text(path)
        with suppress(ValueError):
            if math.isfinite(float(text)):
                return float(text)
        raise BadSample(f"<{self.tag}> has the {path} '{text[:40]}', which is no number")


def parse(content: bytes) -> Element:
    """The outermost tag of a file.

    Raises:
        BadSample: when it is no XML, has a document type, or is nested too deep.
    """
    outer = Element("")
    open_tags = [outer]

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag)
        open_tags[-1].inside.append(element)
        open_tags.append(element)
        if len(open_tags) > MAX_DEPTH:
            raise BadSample(f"XML of more than {MAX_DEPTH} levels")

    def data(text: str) -> None:
        open_tags[-1].said.append(text)

    def refuse(*told: object) -> None:
        raise BadSample("XML with a document type, which no annotation needs")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler = start, data
    parser.EndElementHandler = lambda tag: open_tags.pop()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BadSample(f"not valid XML ({error})") from None
    return outer.inside[0]
