"""What a kept answer depends on, as a key: the picture, how the view was cut from it, and who answered in what form.

Parameters of a view are hashed, never seeds: a seed would mean another crop as soon as a library draws otherwise.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import nn

from onestage.roles import Plan
from onestage.teachers import AnyTeacher
from onestage.teachers.dalle import DalleTeacher
from onestage.teachers.library import LibraryTeacher
from onestage.views import ViewSpec

KEY_BYTES = 16

Key = tuple[int, int]
"""A key as two signed 64-bit numbers; (0, 0) stands for nothing."""


def picture_digest(content: bytes | np.ndarray) -> bytes:
    """The checksum of a picture: of its encoded bytes where it has them, else of its pixels."""
    found = hashlib.blake2b(digest_size=KEY_BYTES)
    if isinstance(content, np.ndarray):
        found.update(str(content.shape).encode())
        found.update(np.ascontiguousarray(content).data)
    else:
        found.update(content)
    return found.digest()


def view_key(salt: bytes, picture: bytes, plan: Plan, view: ViewSpec) -> Key:
    """The key of a view's answers.

    Args:
        salt: who answers, and in what form: `salt_of`.
        picture: `picture_digest`.
    """
    told = [plan.box, plan.flip, [[name, factor.hex()] for name, factor in plan.colour], view.size, view.interpolation]
    told += [] if plan.erased is None else [plan.erased]
    digest = hashlib.blake2b(salt + picture + json.dumps(told).encode(), digest_size=KEY_BYTES).digest()
    first, second = np.frombuffer(digest, dtype="<i8").tolist()
    return first, second


def salt_of(told: object) -> bytes:
    """A digest of plain values: whatever answers depend on besides the view."""
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=KEY_BYTES).digest()


def teacher_digest(teacher: AnyTeacher) -> str:
    """A checksum of a teacher's image side: its weights, and how it wants its pixels. Texts do not count."""
    found = hashlib.blake2b(digest_size=KEY_BYTES)
    if isinstance(teacher, LibraryTeacher):
        pixels = [teacher.interpolation, teacher.mean.flatten().tolist(), teacher.std.flatten().tolist()]
        networks: tuple[nn.Module, ...] = (teacher.tower,)
    elif isinstance(teacher, DalleTeacher):
        pixels, networks = [teacher.statistics], teacher.parts()
    else:
        pixels = [teacher.statistics]
        networks = (teacher.encoder,) if teacher.head is None else (teacher.encoder, teacher.head)
    found.update(json.dumps([teacher.size, teacher.grid, pixels]).encode())
    for network in networks:
        for name, tensor in network.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
