"""Single files of tensors, written so that a reader sees the old one or the new one."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from onestage.spec import UserError


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a file atomically."""
    temporary = path.with_name(f".tmp-{path.name}")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        return load_file(path, device="cpu")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
