"""The command ``kdrec``: answer at once what needs no model, and turn every fault into one sentence."""

import difflib
import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence

from kdrec import __version__
from kdrec.cli import commands
from kdrec.errors import InputError

_EXTRA = {module.name: f"kdrec.cli.commands.{module.name}" for module in pkgutil.iter_modules(commands.__path__)}
COMMANDS = {
    "fit": "train a teacher alone, or a student with a teacher at its side",
    "validate": "rank the full catalogue for the validation items of a checkpoint's data",
    "test": "the same for the test items; without --ckpt_path, of the newest checkpoint",
    **{name: importlib.import_module(path).SUMMARY for name, path in _EXTRA.items()},
}

HELP = f"""kdrec {__version__}: make recommender systems small by knowledge distillation.

usage: kdrec COMMAND [options]

commands:
{chr(10).join(f"  {name:<11}{what}" for name, what in COMMANDS.items())}

options:
  -h, --help      this page; `kdrec COMMAND --help` explains every option of a command
  --version       print the version
  --debug         on an error, print the traceback too

examples:
  kdrec fit --config configs/ncf_ftd.yaml                         a teacher, then its student, then a table
  kdrec fit --config configs/ncf_ftd.yaml --trainer.max_epochs 5  the same with one key changed
  kdrec test                                                      the newest checkpoint on its test items
  kdrec test --ckpt_path checkpoints/ncf_ftd/RUN/best.ckpt        a certain one
  kdrec fit --config configs/ncf_ftd.yaml --print_config          every key with its value, to start a config from
  kdrec study configs/studies/kdd21.yaml --jobs 2                 a grid of fits, its table, significance and figures
  kdrec recommend --items "Toy Story (1995)" 50                   lists by titles or ids, from the newest checkpoint
  kdrec export --ckpt_path checkpoints/bpr/RUN/best.ckpt --format onnx --quantize int8
  tensorboard --logdir logs                                       the curves
"""


def entry_point() -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(main())


def main(args: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        args: What follows ``kdrec`` on the command line; None takes it from there.

    Returns:
        Exit code: 0 done, 2 bad input (one sentence on stderr says what, where and what to do), 130 interrupted,
        1 an error that kdrec did not foresee.
    """
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if args[0] == "--version":
        print(f"kdrec {__version__}")
        return 0
    if args[0] not in COMMANDS:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the commands are {', '.join(COMMANDS)}."
        return _fail(f"There is no command {args[0]!r}; {hint}")
    try:
        if args[0] in _EXTRA:
            return importlib.import_module(_EXTRA[args[0]]).run(args[1:])
        from kdrec.cli.engine import run  # here, since it imports torch and lightning

        return run(args)
    except InputError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error))
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        print(f"kdrec: unexpected {type(error).__name__}: {first}\n(--debug shows the traceback)", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        nothing = "Stopped." if args[0] in _EXTRA else "Stopped before anything was trained."
        print(f"\n{stop if str(stop) else nothing}", file=sys.stderr)
        return 130


def _fail(sentence: str) -> int:
    print(f"kdrec: {sentence}", file=sys.stderr)
    return 2
