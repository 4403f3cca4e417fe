"""How frozen teachers answer during training: live, from answers kept for some epochs, or from a store."""

from __future__ import annotations

from onestage.teachers.serving.codec import Codec
from onestage.teachers.serving.key import picture_digest
from onestage.teachers.serving.planning import Fresh, Marked, Planning, Shown
from onestage.teachers.serving.serve import Served, Setting, check_masks, serve
from onestage.teachers.serving.server import Server
from onestage.teachers.serving.spec import Live, Replay, Serving, Stored

__all__ = [
    "Codec",
    "Fresh",
    "Live",
    "Marked",
    "Planning",
    "Replay",
    "Served",
    "Server",
    "Serving",
    "Setting",
    "Shown",
    "Stored",
    "check_masks",
    "picture_digest",
    "serve",
]
