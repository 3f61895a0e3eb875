"""Notebooks: those of the examples run from top to bottom and print what they show; what models, histories and progress show there."""

import re
from pathlib import Path

import numpy as np
import pytest

import nbnet as nb
from nbnet import progress

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

EXAMPLES = Path(__file__).parents[1] / "examples"
TOUR = EXAMPLES / "tour.ipynb"
# What asyncio, zmq and IPython warn about at the end of a kernel is not ours.
pytestmark = pytest.mark.filterwarnings("default")


def printed(cell):
    return "".join(output["text"] for output in cell["outputs"] if output["output_type"] == "stream" and output["name"] == "stdout")


def shown(cell, kind):
    """What is displayed, or is the value of the cell, in this format."""
    return [output["data"][kind] for output in cell["outputs"] if kind in output.get("data", {})]


def run(notebook, folder):
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell["cell_type"] == "code"]


def test_tour(tmp_path):
    notebook = nbformat.read(TOUR, as_version=4)
    before = [(printed(cell), bool(shown(cell, "image/png"))) for cell in notebook.cells if cell["cell_type"] == "code"]
    assert len(before) == 7
    for number, (cell, (text, drawn)) in enumerate(zip(run(notebook, tmp_path), before), start=1):
        assert printed(cell) == text, f"code cell {number} prints something else than the notebook shows"
        assert bool(shown(cell, "image/png")) == drawn, f"code cell {number}: the notebook should show what it draws"


@pytest.mark.parametrize("name", ["batchnorm", "dropout"])
def test_notebooks_for_learners_print_what_their_comments_say(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert all(not cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"), "committed without outputs"
    cells = run(notebook, tmp_path)
    assert sum(bool(shown(cell, "image/png")) for cell in cells) == 2
    for number, cell in enumerate(cells, start=1):
        assert printed(cell).splitlines() == re.findall(r"# -> (.*)", cell["source"]), f"code cell {number}"


CELLS = [
    """
import numpy as np, nbnet as nb
x, y = np.random.default_rng(0).random((256, 8, 8, 1), np.float32), np.arange(256) % 3
model = nb.Sequential([nb.Flatten(), nb.Dense(3)])
model""",
    "model.build((8, 8, 1))\nmodel",
    "trainer = nb.Trainer(model, optimizer='adam')\nhistory = trainer.fit((x, y), 3)",
    "history",
    "nb.plots.confusion(np.eye(3, dtype=int), ['a', 'b', 'c'])",
    "trainer.fit((x, y), 5)\nmodel.build((8, 8, 1));",
]


def test_what_a_notebook_shows(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    code, table, fit, history, picture, again = run(notebook, tmp_path)
    assert "<pre>nb.Sequential([" in shown(code, "text/html")[0]
    assert re.search(r"<td[^>]*>1.dense</td><td[^>]*>\(N, 3\)</td><td[^>]*>195</td>", shown(table, "text/html")[0])
    (bar,) = shown(fit, "text/html")  # one place, whatever the number of epochs, and as it was at the end
    assert bar.startswith('<progress value="256" max="256"></progress> epoch 3/3  loss ')
    assert shown(history, "text/html")[0].startswith('<img src="data:image/png;base64,iVBOR')
    assert "after 3 epochs: loss " in shown(history, "text/html")[0]
    assert shown(picture, "image/png")
    errors = "".join(output["text"] for output in again["outputs"] if output.get("name") == "stderr")
    assert "continuing after epoch 3: epochs=5 counts from the start of the run" in errors
    assert "is built already and keeps its parameters: for new ones use build((8, 8, 1), rebuild=True)" in errors


def test_a_table_has_the_summary(capsys):
    model = nb.models.se_resnet()
    model.build((8, 8, 3), backend="numpy")
    model.summary()
    words = set(re.sub("[│┃━─┏┓┗┛┡┩┳┴┬╇└┘├┤┼]", " ", capsys.readouterr().out).split())
    found = set(re.sub("<[^>]*>|&emsp;", " ", model._repr_html_()).replace("multiply-adds", "multiply- adds").split())
    assert words == found


def test_a_history_without_epochs():
    from nbnet.training.history import History

    assert History()._repr_html_() == "<pre>{}</pre>"
    assert "<img" not in History(loss=[float("nan")], lr=[1.0])._repr_html_()


def test_terminals_are_no_notebooks(monkeypatch):
    class Shell:
        execution_count = 7

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(__import__("sys").modules, "IPython", IPython)
    assert progress._cell_of_notebook() is None  # IPython in a terminal has no kernel
    Shell.kernel = None
    assert progress._cell_of_notebook() == 7


def test_a_second_build(recwarn):
    model = nb.Sequential([nb.Dense(2)])
    model.build((3,), backend="numpy", seed=1)
    weight = np.array(model.params["0.dense.weight"].value)
    assert not recwarn
    warning = r"sequential is built already and keeps its parameters: for new ones use build\(\(3,\), rebuild=True\)"
    with pytest.warns(UserWarning, match=warning):
        model.build((3,), backend="numpy", seed=2)
    assert (model.params["0.dense.weight"].value == weight).all()
    recwarn.clear()
    model.build((3,), backend="numpy", seed=2, rebuild=True)
    assert (model.params["0.dense.weight"].value != weight).any()
    nb.Sequential([*model, nb.Dense(4)]).build((3,), backend="numpy")  # a new head on it
    assert not recwarn
