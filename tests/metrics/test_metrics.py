"""Edges of metrics: ties, NaN, no rows, and shapes that do not fit."""

import numpy as np
import pytest

from nbnet import metrics as M
from nbnet.errors import DataError, ShapeError


def test_of_equal_outputs_the_first_is_the_larger():
    ties = np.zeros((3, 3))
    for metric, wanted in ((M.TopAccuracy(1), 1), (M.TopAccuracy(2), 2), (M.TopAccuracy(3), 3), (M.Accuracy(), 1)):
        metric.update(ties, np.arange(3))
        assert metric.result() == wanted / 3


def test_nan_is_never_right():
    metric = M.TopAccuracy(2)
    metric.update(np.array([[np.nan, 1, 2], [1, np.nan, 0]]), np.array([0, 0]))
    assert metric.result() == 0.5
    area = M.AUC()
    area.update(np.array([[np.nan, 1], [1, 2.0]]), np.array([0, 1]))
    assert np.isnan(area.result())


@pytest.mark.parametrize("metric", M.METRICS.values(), ids=list(M.METRICS))
def test_without_rows_or_weight_there_is_no_result(metric):
    metric = M.get(metric.name)
    assert np.isnan(metric.result())
    target = np.zeros((2, 3)) if metric.name in ("mae", "r2") else np.array([0, 2])
    metric.update(np.eye(2, 3), target, np.zeros(2))
    assert np.isnan(metric.result())
    metric.update(np.eye(2, 3), target, np.ones(2))
    again = metric.result()
    metric.reset()
    assert np.isnan(metric.result())
    metric.update(np.eye(2, 3), target)
    assert metric.result() == again


def test_an_area_of_one_class_is_nan():
    metric = M.AUC(0.0)
    metric.update(np.ones((3, 2)), np.array([[1, 1], [1, 0], [1, 1]]))
    assert metric.result() == 0.5  # of the second output; the first is always true


def test_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"'f1' got predictions, targets and weights of \(2, 3, 2\) rows, expected as many of each"):
        M.F1().update(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(DataError, match="label 3 of row 1 is not a class"):
        M.Accuracy().update(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ShapeError, match=r"'mae' got targets of shape \(2,\), expected \(2, 3\), as the outputs"):
        M.MeanAbsoluteError().update(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ShapeError, match=r"the confusion matrix has shape \(2, 3\), expected \(2, 2\)"):
        M.Report(np.zeros((2, 3)))


def test_a_metric_in_code():
    assert repr(M.get("f1", 0.5)) == "nb.metrics.F1(threshold=0.5)"
    assert repr(M.get("top_5_accuracy", 0.5)) == "nb.metrics.TopAccuracy(5)"
