"""From words on the command line to a verb, its settings and an exit code."""

from __future__ import annotations

import difflib
import sys
from dataclasses import fields

from onestage.cli.bench import Bench
from onestage.cli.data import Data
from onestage.cli.recipes import Check, Cp, Ls, Show
from onestage.cli.runs import Average, Evaluate, Pretrain, Report
from onestage.cli.teachers import Plan, Teach
from onestage.cli.verb import Settings, Verb

HELP = """onestage: multimodal visual pre-training in one stage, on one objective

  onestage ls [recipes|methods|teachers|sources|...]  what there is; methods prints the table
  onestage show RECIPE                                the resolved recipe, its terms, parameters and FLOPs
  onestage cp RECIPE my.yaml                          a recipe to edit
  onestage check RECIPE --data SRC                    every mistake that would waste hours, found in seconds
  onestage pretrain RECIPE --data SRC --out DIR       train; go on later with: onestage pretrain --resume DIR
  onestage plan RECIPE --data SRC                     time, memory, bytes, and what keeping a teacher's answers saves
  onestage teach RECIPE --data SRC --views K --out DIR  precompute what a frozen teacher answers
  onestage evaluate TASK MODEL --data SRC             zero-shot, retrieval, knn, linear, classify or dense-probe
  onestage average RUN RUN --alpha A --out DIR        a run between two: (1 - A) of the first, A of the second
  onestage report RUN [RUN ...]                       one HTML file of a run, or of several beside one another
  onestage data index|check|pack SRC                  tar shards: index, verify, make (--out DIR)
  onestage data cut SRC --out DIR                     the clips of a source of videos as files
  onestage bench CASE [--data SRC]                    figures of this machine, as JSON lines (onestage ls benches)

RECIPE is a name (onestage ls recipes) or a YAML file; any setting of it can be given as --path.to.setting VALUE.
SRC is a folder of images, tar shards, scenes or digits. onestage VERB --help says more.

Start here:
  onestage pretrain clip_tiny --data scenes --val scenes:test --out runs/teacher
  onestage pretrain uta_tiny --data scenes --val scenes:test --teacher runs/teacher --out runs/student
  onestage evaluate zero-shot runs/student --data scenes:test"""

VERBS: dict[str, type[Verb]] = {
    "ls": Ls,
    "show": Show,
    "cp": Cp,
    "check": Check,
    "pretrain": Pretrain,
    "plan": Plan,
    "teach": Teach,
    "evaluate": Evaluate,
    "average": Average,
    "report": Report,
    "data": Data,
    "bench": Bench,
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit; a user's mistake becomes one message and exit code 2."""
    raise SystemExit(command(list(sys.argv[1:] if arguments is None else arguments)))


def command(words: list[str]) -> int:
    """Run a command and return its exit code: 0, 1 where `check` found faults, 2 for a mistake, 143 after SIGTERM."""
    if not words or words[0] in {"-h", "--help", "help"}:
        print(HELP)
        return 0
    if words[0] == "--version":
        from onestage import __version__

        print(f"onestage {__version__}")
        return 0
    if words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return _say(f"there is no verb '{words[0]}'{hint} See: onestage --help")
    import tyro

    verb = VERBS[words[0]]
    own, settings = split(words[1:], verb)
    if isinstance(settings, str):
        return _say(settings)
    try:
        given = tyro.cli(verb, prog=f"onestage {words[0]}", args=own)
    except SystemExit as ended:  # help, or words that do not fit, of which tyro has said why
        return 2 if ended.code else 0
    return _guarded(given, settings)


def split(words: list[str], verb: type[Verb]) -> tuple[list[str], Settings | str]:
    """A verb's own words, and the settings of the recipe among them; or a message where a setting has no value."""
    own, settings = [], {}
    known = {field.name for field in fields(verb)} | {"help"}  # pyright: ignore[reportArgumentType]
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        if not verb.takes_settings or not word.startswith("--") or name.replace("-", "_") in known:
            own.append(word)
            continue
        given = value if equals else next(rest, None)
        if given is None or given.startswith("--"):
            return own, f"--{name}: a value is missing (--{name} VALUE)"
        settings[name] = given
    return own, settings


def _guarded(verb: Verb, settings: Settings) -> int:
    from onestage.spec import Elsewhere, Stopped, UserError

    try:
        return verb.run(settings)
    except Elsewhere:
        return 2
    except UserError as error:
        return _say(str(error))
    except Stopped as stopped:
        print(stopped, end="\n" if str(stopped) else "", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        return _say("interrupted; a run goes on with: onestage pretrain --resume DIR")
    except BrokenPipeError:
        return 0


def _say(message: str) -> int:
    print(f"onestage: {message}", file=sys.stderr)
    return 2
