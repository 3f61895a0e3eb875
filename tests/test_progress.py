"""The progress bar."""

import io
import subprocess
import sys

from nbnet.progress import Bar


def test_a_bar_that_is_kept_shows_its_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    with Bar(4, "name bar count text", "digits", stream=stream, show=True, keep=True) as bar:
        bar.update(1, "loss 2")
        bar.update(3, "loss 1", "letters")
    assert "letters" in stream.getvalue()
    assert "3/4 loss 1" in stream.getvalue()


def test_without_a_terminal_nothing_is_drawn_or_imported():
    code = """
import io, sys
from nbnet.progress import Bar
stream = io.StringIO()
with Bar(4, "name bar", "digits", stream=stream) as bar:
    bar.update(1)
print(repr(stream.getvalue()), bar.shown, "rich" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["''", "False", "False"]
