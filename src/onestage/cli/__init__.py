"""The verbs as commands. Nothing heavy is imported before a verb runs, so that help answers at once."""

from __future__ import annotations

from onestage.cli.command import VERBS, command, main

__all__ = ["VERBS", "command", "main"]
