"""The README's commands: the check runs the one for tests word for word; here, that the words of the others are right."""

import re
from pathlib import Path

import pytest

from nbnet import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)


def test_two_commands_for_a_fresh_machine():
    assert len(SHELL) == 2
    assert all(command.startswith("python3 -m venv .venv && .venv/bin/pip install ") for command in SHELL)


def test_the_check_runs_the_readmes_test_command():
    (command,) = [block.strip() for block in SHELL if "-m pytest" in block]
    first = next(line for line in README.splitlines() if "-m pytest" in line)
    assert first == command
    assert "grep -m 1 -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`nbnet ([a-z]+)", README + COMMANDS))))
def test_every_command_exists(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"nbnet {command}" in capsys.readouterr().out


def test_two_screens():
    assert len(README.splitlines()) <= 100
