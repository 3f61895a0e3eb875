"""The history of a run: what Trainer.fit returns."""

from __future__ import annotations

import base64
import html
import math

from nbnet import plots


class History(dict[str, list[float]]):
    """One list per column, with one value per epoch: loss, accuracy, val_loss, lr, seconds and others. A notebook shows its curves."""

    def _repr_html_(self) -> str:
        drawn = [name for name, column in self.items() if name not in ("lr", "seconds") and any(map(math.isfinite, column))]
        if not drawn:
            return f"<pre>{html.escape(repr(self))}</pre>"
        picture = base64.b64encode(plots.curves(self)._repr_png_()).decode()
        last = ", ".join(f"{name} {self[name][-1]:.4g}" for name in drawn)
        epochs = len(self[drawn[0]])
        return f'<img src="data:image/png;base64,{picture}" style="max-width: 100%"><div>after {epochs} epochs: {html.escape(last)}</div>'
