"""nbnet completion: the script that completes commands and options in a shell, written by shtab."""

from __future__ import annotations

import argparse

from nbnet.errors import ArgumentError, ExtraError, unknown

HELP = "Print the script that completes nbnet's commands and options in a shell."
EPILOG = """examples:
  nbnet completion bash > ~/.local/share/bash-completion/completions/nbnet
  nbnet completion zsh > ~/.zfunc/_nbnet             a folder of your fpath
It needs pip install 'nbnet[completion]'."""

SHELLS = ("bash", "zsh", "tcsh")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    """The command."""
    from nbnet.cli import parsers

    if options.shell not in SHELLS:
        raise ArgumentError(unknown("shell", options.shell, SHELLS))
    try:
        import shtab
    except ImportError as error:
        raise ExtraError(f"nbnet completion needs shtab ({error}): pip install 'nbnet[completion]'") from None
    print(shtab.complete(parsers()[0], options.shell))
    return 0
