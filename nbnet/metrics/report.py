"""The confusion matrix of a classification, and what follows from it for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbnet.errors import ShapeError
from nbnet.metrics.classes import share


class Report:
    """Precision, recall and F1 of each class. `print(report)` shows them as a table, with the confusion matrix.

    Args:
        matrix: (C, C) counts, one row per true class, one column per predicted class.
        class_names: C names; None for the numbers of the classes.
    Attributes:
        precision, recall, f1: (C,), 0 where a class is never predicted or has no rows. support: (C,) rows of the class. accuracy: overall.
    Raises:
        ShapeError: matrix and names do not fit.
    """

    def __init__(self, matrix: Any, class_names: Sequence[str] | None = None) -> None:
        self.matrix = np.asarray(matrix)
        self.class_names = [str(name) for name in (range(len(self.matrix)) if class_names is None else class_names)]
        classes = len(self.class_names)
        if self.matrix.shape != (classes, classes):
            raise ShapeError(f"the confusion matrix has shape {self.matrix.shape}, expected ({classes}, {classes}): one row per class name")
        right, said = np.diagonal(self.matrix), self.matrix.sum(axis=0)
        self.support = self.matrix.sum(axis=1)
        self.precision, self.recall = share(right, said), share(right, self.support)
        self.f1 = share(2 * right, said + self.support)
        self.accuracy = float(share(right.sum(), self.support.sum()))

    def __str__(self) -> str:
        names = [*self.class_names, "accuracy", "macro average", "weighted average"]
        width = max(map(len, names))
        columns = self.precision, self.recall, self.f1
        rows = self.support.sum()
        lines = [f"{'':{width}}  precision  recall      f1  support"]
        lines += [_line(f"{name:{width}}", [column[i] for column in columns], n) for i, (name, n) in enumerate(zip(names, self.support))]
        lines += ["", f"{'accuracy':{width}}  {'':9}  {'':6}  {self.accuracy:6.4f}  {rows:7,}"]
        weights = self.support / max(rows, 1)
        for name, average in (("macro average", np.mean), ("weighted average", lambda column: weights @ column)):
            lines.append(_line(f"{name:{width}}", [average(column) for column in columns], rows))
        return "\n".join([*lines, "", *self._confusion()])

    def _confusion(self) -> list[str]:
        """The matrix, whose columns have the width of the longest count or name."""
        cells = [[f"{count:,}" for count in row] for row in self.matrix]
        left = max(len("true \\ said"), *map(len, self.class_names))
        widths = [max(map(len, (name, *column))) for name, column in zip(self.class_names, zip(*cells))]
        table = [["true \\ said", *self.class_names], *([name, *row] for name, row in zip(self.class_names, cells))]
        return [f"{first:{left}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(rest, widths)) for first, *rest in table]

    def __repr__(self) -> str:
        return f"<Report of {self.support.sum():,} rows, {len(self.class_names)} classes, accuracy {self.accuracy:.4f}>"


def _line(name: str, values: Sequence[float], support: int) -> str:
    precision, recall, f1 = values
    return f"{name}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {support:7,}"
