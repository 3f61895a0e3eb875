"""The two estimators: labels of any type, and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from nbnet.errors import ArgumentError, DataError, DTypeError, ShapeError, first_line
from nbnet.functional import checks
from nbnet.sklearn.base import NetworkEstimator, check_finite


class CNNClassifier(ClassifierMixin, NetworkEstimator):
    """A network that classifies images, or the rows of tables, as an estimator of scikit-learn.

    Args:
        network: None for an MLP with batch norm for tables (X of two axes, no image_shape), and "lenet" for images; the name of another
            model in nb.models.MODELS; or a function (input_shape, outputs) -> an nb.Sequential that is not built, whose outputs are
            logits.
        image_shape: (H, W, C), or (H, W) of grey images: rows of X get this shape. None leaves X as it is.
        epochs: of each call of fit. batch_size: rows of a step.
        optimizer: None for nb.Adam(0.01), a name, or an optimiser, which is copied. schedule: a name, a function, or None for a constant
            rate (see nb.Trainer).
        augment: transforms of images, and their names (see nb.augment), such as ["crop"]. Those of colours expect pixels from 0 to 1.
        early_stopping: True holds out rows and stops when their loss has not improved for 10 epochs; the best weights are restored. Or
            an nb.callbacks.EarlyStopping with other options.
        validation_fraction: the share of the rows, of each class, that early stopping holds out.
        class_weight: None, "balanced", or a dict {label: weight}; the weights multiply those of the rows.
        random_state: of the weights, the order of the rows, dropout and augmentation: an int repeats a fit bit for bit.
        backend: "parallel", "serial", "cuda" or "numpy".
        warm_start: whether fit continues with the existing network.
        verbose: whether to show a progress bar.
    X is not scaled. Tables are trained in float64 if X is float64 or whole numbers, and in float32 if it is float32; images in float32.
    Attributes:
        classes_: the labels, sorted. loss_curve_: the loss of each epoch. n_iter_: epochs so far. history_: nb.Trainer's history of the
            last call. model_: the network, for nb.compile and others. n_features_in_, feature_names_in_: as in scikit-learn.
    """

    _loss = "softmax_cross_entropy"
    _labels: LabelEncoder
    classes_: np.ndarray

    def __init__(
        self,
        network: Any = None,
        *,
        image_shape: Any = None,
        epochs: int = 40,
        batch_size: int = 64,
        optimizer: Any = None,
        schedule: Any = "one_cycle",
        augment: Any = (),
        early_stopping: Any = False,
        validation_fraction: float = 0.1,
        class_weight: Any = None,
        random_state: Any = None,
        backend: Any = "parallel",
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            network,
            image_shape=image_shape,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            schedule=schedule,
            augment=augment,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            random_state=random_state,
            backend=backend,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> CNNClassifier:
        """Train one epoch on these rows, at the optimiser's own rate (no schedule), continuing from the current weights.

        Args:
            X, y, sample_weight: as in `fit`. classes: all possible labels; required in the first call.
        Raises:
            ValueError, TypeError: as `fit`; y has a label that is not in classes.
        """
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            hint = "give a dict, such as that of sklearn.utils.class_weight.compute_class_weight for all of y"
            raise ArgumentError(f"partial_fit with class_weight={self.class_weight!r} does not know how often classes come: {hint}")
        if classes is not None:
            given = np.asarray(list(classes) if isinstance(classes, (set, frozenset)) else classes)
            if given.ndim != 1 or not given.size:
                raise ArgumentError(f"classes={classes!r}: expected all labels, such as np.unique(all_of_y)")
            classes = given
        if not hasattr(self, "model_"):
            if classes is None:
                raise ArgumentError("the first partial_fit needs all labels: partial_fit(X, y, classes=np.unique(all_of_y))")
        elif classes is not None and set(classes.tolist()) != set(self.classes_.tolist()):
            raise ArgumentError(f"classes={classes.tolist()} differ from those before, {self.classes_.tolist()}: leave them out")
        return self._partial_fit(X, y, sample_weight, classes)

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row: (N,)."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities of classes_: the softmax of the network's outputs, (N, classes) float64."""
        logits = self._outputs(X).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows whose label is correct.

        Raises:
            DataError: y has a label that fit has not seen.
        """
        check_is_fitted(self)
        self._codes(y)
        return float(super().score(X, y, sample_weight))

    def _targets(self, y: Any, fresh: bool, classes: Any) -> tuple[np.ndarray, int]:
        try:
            check_classification_targets(y)
            labels = LabelEncoder().fit(column_or_1d(y if classes is None else classes)) if fresh else self._labels
        except TypeError as error:
            raise DTypeError(f"the labels are of types that do not mix ({first_line(error)}), expected numbers, or strings alone") from None
        self._labels, self.classes_ = labels, labels.classes_
        return self._codes(y), len(self.classes_)

    def _codes(self, y: Any) -> np.ndarray:
        """The numbers of the labels in classes_."""
        y = column_or_1d(y)
        try:
            return np.asarray(self._labels.transform(y))
        except (ValueError, TypeError):
            known = self.classes_.tolist()
            other = next((label for label in y.tolist() if not any(label is each or label == each for each in known)), y[0])
            raise DataError(f"y has the label {other!r}, which was not there before: expected {_some(known)}") from None

    def _all_weights(self, sample_weight: np.ndarray | None, y: Any) -> np.ndarray | None:
        given = self.class_weight
        if given is None:
            return sample_weight
        if isinstance(given, Mapping):
            of_rows = self._weights_of_classes(given)[self._codes(y)]
        elif isinstance(given, str) and given == "balanced":
            of_rows = np.asarray(compute_sample_weight(given, y))
        else:
            raise ArgumentError(f"class_weight={given!r}: expected None, 'balanced', or a dict {{label: weight}}")
        return of_rows if sample_weight is None else of_rows * sample_weight

    def _weights_of_classes(self, given: Mapping[Any, Any]) -> np.ndarray:
        """(classes,) the weights of a dict; 1 where it has none. As in scikit-learn, it may know more labels, if it knows all of y.

        Raises:
            ArgumentError: it has another label and lacks one, or a weight is wrong.
        """
        known = self.classes_.tolist()
        other = [label for label in given if label not in known]
        lacking = [label for label in known if label not in given]
        if other and lacking:
            raise ArgumentError(f"class_weight has the label {other[0]!r}, which y never has, expected {_some(lacking)}")
        for label, weight in given.items():
            checks.number(weight, f"class_weight[{label!r}]", "a finite number of at least 0", lambda value: 0 <= value < np.inf)
        return np.array([given.get(label, 1) for label in known], np.float64)


def _some(labels: list[Any]) -> str:
    return ", ".join(map(repr, labels[:10])) + (", ..." if len(labels) > 10 else "")


class CNNRegressor(MultiOutputMixin, RegressorMixin, NetworkEstimator):
    """A network that predicts one or several numbers for images, or the rows of tables, as an estimator of scikit-learn.

    Args:
        all but class_weight: as of CNNClassifier.
    It minimises the mean squared error. Targets are scaled to mean 0 and variance 1 as the first call of fit has them, and back.
    Attributes:
        as of CNNClassifier, without classes_. loss_curve_ is that of the scaled targets.
    """

    _loss = "mean_squared_error"
    _checks_of_y = {"multi_output": True, "y_numeric": True}

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> CNNRegressor:
        """Train one epoch on these rows, at the optimiser's own rate (no schedule), continuing from the current weights. The first call
        scales the targets.

        Args:
            X, y, sample_weight: as in `fit`.
        Raises:
            ValueError, TypeError: as `fit`.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """The numbers of each row, in the shape of y: (N,) or (N, outputs)."""
        found = self._outputs(X) * self._spread + self._center
        return found.reshape(-1) if self._flat else found

    def _targets(self, y: Any, fresh: bool, classes: Any) -> tuple[np.ndarray, int]:
        if not isinstance(y, np.ndarray):
            raise DTypeError(f"y is a sparse {type(y).__name__}, expected a dense array: write y.toarray()")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        try:
            numbers = y.astype(np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(f"y has dtype {y.dtype} ({first_line(error)}), expected numbers: for labels use CNNClassifier") from None
        check_finite(numbers, "y")
        targets = numbers.reshape(len(y), -1)
        if fresh:
            self._flat = y.ndim == 1
        elif targets.shape[1] != len(self._center):
            raise ShapeError(f"y has {targets.shape[1]} numbers in a row, expected {len(self._center)} as before")
        return targets, targets.shape[1]

    def _scaled(self, targets: np.ndarray, weights: np.ndarray | None, fresh: bool) -> np.ndarray:
        if fresh:
            size = np.abs(targets).max(axis=0)  # squares of numbers near 1 neither overflow nor underflow
            size[size == 0] = 1
            center = np.average(targets / size, axis=0, weights=weights)
            spread = size * np.sqrt(np.average((targets / size - center) ** 2, axis=0, weights=weights))
            self._center, self._spread = size * center, np.where(spread > 0, spread, 1.0)
        return (targets - self._center) / self._spread
