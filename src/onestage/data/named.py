"""Files that annotations name without folder or ending, as VQA, NLVR2, Flickr30K and HD-VILA do."""

from __future__ import annotations

from pathlib import Path
from typing import final

from onestage.data.decode import EXTENSIONS, File
from onestage.data.listing import ending, names_in
from onestage.sample import BadSample
from onestage.spec import UserError


@final
class Named:
    """The images (or videos) of a folder and its sub-folders, by their names without ending.

    Raises:
        UserError: when the folder cannot be read, or has none.
    """

    def __init__(self, folder: Path, what: str = "images", endings: frozenset[str] = EXTENSIONS) -> None:
        self.folder = folder
        self._files: dict[str, str] = {}
        self._twice: dict[str, str] = {}
        try:
            for file in names_in(folder):
                if ending(file) in endings:
                    name = file.rpartition("/")[2][: -len(ending(file))]
                    (self._twice if name in self._files else self._files)[name] = file
        except OSError as error:
            raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
        if not self._files:
            raise UserError(f"{folder}: no {what} in it; {what} end in {' '.join(sorted(endings))}")

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def file(self, *names: str) -> str:
        """The path inside the folder of the first of several names that is there; the last name where none is.

        Raises:
            UserError: when two files have that name.
        """
        name = next((name for name in names if name in self._files), names[-1])
        if name in self._twice:
            raise UserError(
                f"{self.folder}: {self._files[name]} and {self._twice[name]} have one name; keep one of them"
            )
        return self._files.get(name, name)


def picture(folder: Path, file: str) -> File:
    """An image of a folder.

    Raises:
        BadSample: when it was not found there.
    """
    if ending(file) not in EXTENSIONS:
        raise BadSample(f"there is no image {file}.* in {folder}")
    return File(folder / file)
