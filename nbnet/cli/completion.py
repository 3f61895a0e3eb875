"""nbnet --completion: the script that completes commands and options in a shell, written by shtab."""

from __future__ import annotations

import argparse
from typing import Any

from nbnet.errors import ExtraError, unknown

SHELLS = ("bash", "zsh", "tcsh")
HELP = f"print the script that completes commands and options in {', '.join(SHELLS)} (pip install 'nbnet[completion]')"


class Completion(argparse.Action):
    """An option that prints the script for a shell and exits, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, shell: Any, option: str | None = None) -> None:
        if shell not in SHELLS:
            parser.error(unknown("shell", shell, SHELLS))
        try:
            import shtab
        except ImportError as error:
            raise ExtraError(f"{option} needs shtab ({error}): pip install 'nbnet[completion]'") from None
        print(shtab.complete(parser, shell))
        parser.exit()
