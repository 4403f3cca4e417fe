"""The process that a bench trains in: `python -m onestage.bench.child FILE RUN`. It ends when the bench ends, however
that ends: its standard input is a pipe that the bench holds open, and a pipe closes with its last holder."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from onestage.engine.together import joined
from onestage.pretraining import Chain, Recipe, is_chain, resume, resume_chain, start, start_chain
from onestage.spec import Stopped, UserError, from_plain, read_yaml

GRACE = 60.0
"""Seconds to save a checkpoint in."""


def main(words: list[str]) -> int:
    """Train what a file holds into a folder, or go on with it. Returns the exit code: 0, 2 for a mistake, 143 where it
    was stopped."""
    threading.Thread(target=_end_with_the_bench, daemon=True).start()
    try:
        with joined():
            _train(Path(words[0]), Path(words[1]))
    except UserError as error:
        print(f"onestage: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 143
    return 0


def _train(file: Path, run: Path) -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if is_chain(run):
        resume_chain(run, sys.argv, say)
    elif (run / "run.yaml").exists():
        resume(run, say)
    else:
        plain = read_yaml(file)
        if isinstance(plain, dict) and "stages" in plain:
            start_chain(from_plain(Chain, plain, str(file)), run, sys.argv, say)
        else:
            start(from_plain(Recipe, plain, str(file)), run, sys.argv, say)


def _end_with_the_bench() -> None:
    """Wait for the other end of standard input to close, and stop as SIGTERM does: a run saves itself first."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(143)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
