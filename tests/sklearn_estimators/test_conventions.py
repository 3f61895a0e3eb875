"""scikit-learn's own checks of estimators, all of them. (The folder is not called sklearn: it would hide scikit-learn.)"""

import pytest

pytest.importorskip("sklearn")
from sklearn.utils.estimator_checks import parametrize_with_checks

from nbnet.sklearn import CNNClassifier, CNNRegressor


@parametrize_with_checks([CNNClassifier(), CNNRegressor()])
def test_check_estimator(estimator, check):
    check(estimator)
