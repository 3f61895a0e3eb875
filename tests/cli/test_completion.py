"""nbnet --completion: the scripts that shtab writes."""

import shutil
import subprocess
import sys

import pytest

from nbnet import cli

from .running import nbnet

pytest.importorskip("shtab")


def script_for(shell, capsys):
    with pytest.raises(SystemExit) as stopped:
        nbnet("--completion", shell)
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_all_commands_and_options(capsys, shell):
    script = script_for(shell, capsys)
    for name, parser in cli.parsers()[1].items():
        assert name in script
        for action in parser._actions:
            for option in action.option_strings:
                assert option.lstrip("-") in script, (name, option)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(capsys):
    script = script_for("bash", capsys)
    ask = "\nCOMP_WORDS=(nbnet train --aug) COMP_CWORD=2; _shtab_nbnet; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--augment"]


def test_errors(capsys, monkeypatch):
    assert nbnet("--completion", "fish") == 2
    expected = "nbnet: error: unknown shell 'fish': did you mean 'zsh'? choose one of bash, zsh, tcsh (see nbnet --help)\n"
    assert capsys.readouterr().err == expected
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert nbnet("--completion", "bash") == 2
    error = capsys.readouterr().err
    assert error.startswith("nbnet: error: --completion needs shtab (")
    assert error.endswith("pip install 'nbnet[completion]'\n")
