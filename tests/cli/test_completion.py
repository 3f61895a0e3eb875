"""nbnet completion: the scripts that shtab writes."""

import shutil
import subprocess
import sys

import pytest

from nbnet import cli

from .running import nbnet

pytest.importorskip("shtab")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_all_commands_and_options(capsys, shell):
    assert nbnet("completion", shell) == 0
    script = capsys.readouterr().out
    for name, parser in cli.parsers()[1].items():
        assert name in script
        for action in parser._actions:
            for option in action.option_strings:
                assert option.lstrip("-") in script, (name, option)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(capsys):
    assert nbnet("completion", "bash") == 0
    script = capsys.readouterr().out
    ask = "\nCOMP_WORDS=(nbnet train --aug) COMP_CWORD=2; _shtab_nbnet; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--augment"]


def test_errors(capsys, monkeypatch):
    assert nbnet("completion", "fish") == 2
    assert capsys.readouterr().err == "nbnet: error: unknown shell 'fish': choose one of bash, zsh, tcsh\n"
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert nbnet("completion", "bash") == 2
    error = capsys.readouterr().err
    assert error.startswith("nbnet: error: nbnet completion needs shtab (")
    assert error.endswith("pip install 'nbnet[completion]'\n")
