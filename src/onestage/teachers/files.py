"""Files of weights on this machine: safetensors only, and what a model card says of their licence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from onestage.spec import UserError

MAX_CARD_BYTES = 1 << 16
MAX_JSON_BYTES = 16 << 20
"""A configuration with the names of 21,000 classes has two million."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
HUB = "https://huggingface.co/"


def need_safetensors(reference: str, file: Path) -> Path:
    """The file itself.

    Raises:
        UserError: when it is not a file of safetensors, saying how a pickle is converted.
    """
    if not file.is_file():
        raise UserError(f"{reference}: there is no file {file}")
    if file.suffix in PICKLES:
        raise UserError(f"{reference}: {_how(file)}")
    if file.suffix != ".safetensors":
        raise UserError(f"{reference}: {file.name} is not a file of weights this can read; expected .safetensors")
    return file


def weights_in(reference: str, folder: Path, names: tuple[str, ...]) -> Path:
    """The first of these files that a folder has.

    Raises:
        UserError: when it has none of them, naming what it has and how a pickle is converted.
    """
    for name in names:
        if (folder / name).is_file():
            return need_safetensors(reference, folder / name)
    pickles = sorted(path for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise UserError(f"{reference}: {_how(pickles[0])}")
    raise UserError(f"{reference}: {folder} holds no weights (expected {names[0]})")


def read_json(file: Path) -> dict[str, Any]:
    """A configuration.

    Raises:
        UserError: when it is missing, too large, or not a JSON object.
    """
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{file}: {file.stat().st_size} bytes is too large (at most {MAX_JSON_BYTES})")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object")
    return found


def licence_in(folder: Path) -> str:
    """The licence that the model card of a folder (the header of its README.md) states."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as card:
            head = card.read(MAX_CARD_BYTES)
    except OSError:
        return "unknown: there is no model card beside the weights"
    header = re.match(r"---\s*\n(.*?)\n---", head, flags=re.DOTALL)
    found = re.search(r"^license:\s*(\S.*)$", header.group(1), flags=re.MULTILINE) if header else None
    return found.group(1).strip().strip("'\"") if found else "unknown: the model card states none"


def licence_of(repository: str) -> str:
    """Where the licence of a published model is stated."""
    return f"see {HUB}{repository.strip('/')}"


def one_line(error: BaseException, most: int = 400) -> str:
    """What a library said, on one line."""
    return " ".join(str(error).split())[:most]


def _how(file: Path) -> str:
    """What to do with a pickle."""
    return (
        f"{file.name} is a pickle, which can run code when it is opened, so it is not. Convert it once, where you "
        'trust it:\n  python -c "import torch; from safetensors.torch import save_file; '
        f"w = torch.load('{file.name}', weights_only=True); w = w.get('state_dict', w); "
        f"save_file({{k: v.clone().contiguous() for k, v in w.items()}}, '{file.stem}.safetensors')\""
    )
