"""A source with what a user says of it: names of its classes, prompts as its texts, what keeps its captions true."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import final

from onestage.data.classes import read_classes
from onestage.data.options import Options
from onestage.sample import BadSample, Sample, Source, describe_as
from onestage.spec import UserError


@final
class Adapted(Source):
    """Another source under options.

    Raises:
        UserError: when prompts are asked of a source without classes, or its classes are more than their names.
    """

    def __init__(self, name: str, source: Source, options: Options) -> None:
        self.name, self.source, self.prompts = name, source, options.prompts
        describe_as(self, source)
        self.classes = _classes(name, source, options)
        self.has_texts = source.has_texts or bool(self.prompts)
        self.reads = options.captions or source.reads
        self.keeps_captions = _keeps(source, options)
        self._told = repr((self.classes, self.prompts, self.reads))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        if not self.prompts:
            return sample
        if sample.label is None:
            raise BadSample("it has no label to make a prompt of")
        texts = tuple(prompt.replace("{}", self.classes[sample.label]) for prompt in self.prompts)
        return dataclasses.replace(sample, texts=texts)

    def fingerprint(self) -> str:
        """Hash of its source's, and of what was said of it."""
        told = f"{self.source.fingerprint()} {self._told}"
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _classes(name: str, source: Source, options: Options) -> tuple[str, ...]:
    if options.classes is None and options.prompts and not source.classes:
        raise UserError(f"{name}: prompt= makes texts of classes, and {source.name} has none")
    if options.classes is None:
        return source.classes
    named = read_classes(options.classes)
    if len(named) != len(source.classes):
        raise UserError(f"{name}: {options.classes} names {len(named)} classes, and there are {len(source.classes)}")
    return named


def _keeps(source: Source, options: Options) -> frozenset[str]:
    """A prompt tells of a class alone, which no crop, flip or colour is thought to change."""
    if options.keeps is not None:
        return options.keeps
    return frozenset({"crop", "flip", "colour"}) if options.prompts else source.keeps_captions
