"""The notebook runs from top to bottom, without Jupyter, and prints what it shows."""

import contextlib
import io
import json
from pathlib import Path

TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"


def test_tour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    assert (notebook["nbformat"], len(cells)) == (4, 15)
    assert len({cell["id"] for cell in cells}) == 15
    namespace = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(cells, start=1):
            if cell["cell_type"] != "code":
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), f"tour.ipynb, cell {number}", "exec"), namespace)
            shown = "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")
            assert printed.getvalue() == shown, f"cell {number} prints something else than the notebook shows"
            drawn = any("image/png" in output.get("data", {}) for output in cell["outputs"])
            assert drawn == bool(namespace["plt"].get_fignums()), f"cell {number}: the notebook should show what it draws"
            namespace["plt"].close("all")
    finally:
        if "plt" in namespace:
            namespace["plt"].close("all")
