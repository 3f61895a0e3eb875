"""The command line: nbnet train, predict, export, bench, demo, info, warmup. One file per command.

Exit codes: 0 done, 2 bad argument or bad input (one line on stderr, never a traceback), 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from nbnet.cli import bench, completion, demo, export, info, predict, train, warmup
from nbnet.cli.interrupts import interruptible
from nbnet.errors import ArgumentError, NbnetError, unknown
from nbnet.version import __version__

COMMANDS = {"train": train, "predict": predict, "export": export, "bench": bench, "demo": demo, "info": info, "warmup": warmup}

PATHS = ("DIR", "RUN", "FILE")  # how options call them

EPILOG = """examples:
  nbnet train                          train a CNN on the handwritten digits that come with nbnet
  nbnet train --data mnist             download MNIST and train on it
  nbnet train --data photos            your own images: one sub-folder of photos per class
  nbnet predict runs/digits-digits-1 digit.png
  nbnet export runs/digits-digits-1 digits.onnx
  nbnet train --help                   every option of a command"""


class _Parser(argparse.ArgumentParser):
    """A parser that raises nbnet's own error, which is printed as one line."""

    def error(self, message: str) -> NoReturn:
        raise ArgumentError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `nbnet`; None: sys.argv.
    Returns:
        the exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print what the terminal's encoding lacks, and file names that are not text, as escapes
            stream.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            code = _run(words)
            sys.stdout.flush()
    except NbnetError as error:
        if getattr(error, "is_said", True):  # with several ranks, by one of them
            print(f"nbnet: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nbnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader closed the pipe, as in `nbnet info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"nbnet: error: cannot write the output: {error.strerror}", file=sys.stderr)
        return 2
    return code


def _run(words: list[str]) -> int:
    parser, of_command = parsers()
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ArgumentError(unknown("command", words[0], COMMANDS))
    options, rest = parser.parse_known_args(words)
    if rest:
        known = [word for action in of_command[options.command]._actions for word in action.option_strings]
        near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        kind = "option" if rest[0].startswith("-") else "argument"
        raise ArgumentError(f"unknown {kind} {rest[0]!r}: {hint}see nbnet {options.command} --help")
    for action in of_command[options.command]._actions:
        if action.metavar in PATHS and getattr(options, action.dest) == "":
            name = action.option_strings[0] if action.option_strings else action.dest
            hint = f"give a path (see nbnet {options.command} --help)"
            raise ArgumentError(f"argument {name} is empty, expected {action.metavar}: {hint}")
    return COMMANDS[options.command].run(options)


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of the commands by name."""
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser("nbnet", description="Small CNNs on NumPy and Numba alone.", epilog=EPILOG, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"nbnet {__version__}")
    parser.add_argument("--completion", metavar="SHELL", action=completion.Completion, help=completion.HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    of_command: dict[str, argparse.ArgumentParser] = {}
    for name, module in COMMANDS.items():
        texts = {"help": module.HELP, "description": module.HELP, "epilog": module.EPILOG}
        of_command[name] = commands.add_parser(name, **texts, formatter_class=form)
        module.add_options(of_command[name])
    return parser, of_command
