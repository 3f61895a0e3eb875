"""What is said while kernels are compiled, with a made-up cache."""

import pytest
from progress_bar import Bar

from nbnet.cli import kernels


@pytest.mark.parametrize(
    ("cold", "counts", "said"),
    [
        (True, [3, 7], ["the message", "first", "second"]),  # before the first kernel; the number is asked before and after
        (False, [3, 5, 7], ["first", "the message", "second"]),  # after the first that was missing; and until then
        (False, [3, 3, 3, 3], ["first", "second"]),
    ],
)
def test_compiling_is_said_once(cold, counts, said, monkeypatch, capsys):
    asked = []
    compiled = iter(counts)
    monkeypatch.setattr(kernels, "Bar", Bar)
    monkeypatch.setattr(kernels, "is_cold", lambda backend: asked.append(backend) or cold)
    monkeypatch.setattr(kernels, "compiled", lambda: next(compiled))

    def names():
        for name in ("first", "second"):
            print(name)
            yield name

    assert kernels.show(names(), 9, "a backend", "the message") == counts[-1] - counts[0]
    out = capsys.readouterr().out.split("\n")[:-1]
    assert out == said
    assert asked == ["a backend"]
    bar = Bar.made.pop()
    assert (bar.total, bar.updates) == (9, [(0, "preparing kernels", "first"), (1, "preparing kernels", "second")])
