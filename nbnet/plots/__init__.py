"""Pictures of a run: learning curves, the confusion matrix, the mistakes.

Each function returns a Matplotlib figure, which a notebook shows, and writes it to a file where a path is given. With ax= it draws into
these axes of a figure of yours.

Only Matplotlib's object interface is used: no pyplot, no window, no global figure, and nothing is imported before it is needed.
"""

from nbnet.plots.charts import confusion, curves, rates
from nbnet.plots.figures import figure, save
from nbnet.plots.images import augmented, mistakes

__all__ = ["augmented", "confusion", "curves", "figure", "mistakes", "rates", "save"]
