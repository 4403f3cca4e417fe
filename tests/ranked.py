"""Ranks as torchrun starts them, and all that they do for the tests: `python tests/ranked.py FOLDER`.

It imports torch once and forks the ranks of each world, one process group for all checks of a world size.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

WORLDS = (1, 2, 4)


def main(folder: Path) -> None:
    import ranked_checks
    import ranked_runs

    torch.set_num_threads(1)
    codes = {f"{count}": ranks(count, lambda: ranked_checks.checks(folder), folder / f"log{count}") for count in WORLDS}
    codes |= ranked_runs.runs(folder)
    (folder / "codes.json").write_text(json.dumps(codes))


def ranks(count: int, work: Callable[[], int | None], log: Path) -> list[int]:
    """Fork so many ranks, as torchrun would start them; their exit codes."""
    children, port = [], free_port()
    for number in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            signal.alarm(120)  # a rank that waits in vain ends the test
            with (log.parent / f"{log.name}.{number}").open("w") as file:
                os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            os.environ |= {
                **{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)},
                **{"LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            }
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
