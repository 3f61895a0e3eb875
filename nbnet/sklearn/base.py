"""What the estimators share: from the arguments of scikit-learn to a Trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from nbnet.batchnorm_tools import recalibrate
from nbnet.errors import ArgumentError, DataError, ShapeError
from nbnet.functional import checks
from nbnet.layers import BatchNorm, Sequential
from nbnet.optimizers import Adam
from nbnet.preprocessing import check_sample_weight
from nbnet.sklearn.networks import Weighted, make
from nbnet.training.callbacks import EarlyStopping
from nbnet.training.trainer import Trainer

PATIENCE = 10  # epochs without a better validation before training stops, as in scikit-learn
SEEDS = 1 << 31


class NetworkEstimator(BaseEstimator):
    """Base of CNNClassifier and CNNRegressor, which define what targets are."""

    _loss: str
    _checks_of_y: dict[str, Any] = {}  # options of validate_data

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
        random_state: Any = None,
        backend: Any = "parallel",
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.network = network
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.backend = backend
        self.warm_start = warm_start
        self.verbose = verbose

    def _targets(self, y: Any, fresh: bool, classes: Any) -> tuple[np.ndarray, int]:
        """y as the loss takes it, and how many outputs that needs.

        Args:
            fresh: whether what y may be is learnt here. classes: all labels, if they are known; None for those of y.
        """
        raise NotImplementedError

    def _scaled(self, targets: np.ndarray, weights: np.ndarray | None, fresh: bool) -> np.ndarray:
        """The targets in the units of the network's outputs, which are chosen if `fresh`."""
        return targets

    def _all_weights(self, sample_weight: np.ndarray | None, y: Any) -> np.ndarray | None:
        """The weights of the rows, also of their classes."""
        return sample_weight

    def set_params(self, **params: Any) -> Any:
        """Set parameters by name.

        Raises:
            ValueError: there is no such parameter.
        """
        for name in params:
            key, nested, _ = name.partition("__")
            if nested and key in self.get_params(deep=False) and not hasattr(getattr(self, key), "set_params"):
                raise ArgumentError(f"got {name}, but {key}={getattr(self, key)!r} has no such parameters: expected another {key}=")
        return super().set_params(**params)

    # ------------------------------------------------------------------------------------------------ training

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train a new network, or with warm_start=True the one that there is, for `epochs` epochs.

        Args:
            X: (N, features), images (N, H, W, C), or rows of any shape that image_shape or the network takes; finite numbers.
            y: (N,) labels or numbers; for regression also (N, outputs).
            sample_weight: (N,) numbers of at least 0; None for 1. Only their ratios count. Rows of weight 0 are left out.
        Raises:
            ValueError, TypeError: something does not fit, often as a subclass of NbnetError; the estimator is as it was before.
        """
        fresh = not (self.warm_start and hasattr(self, "model_"))
        with unchanged_on_error(self):
            callbacks, share = self._stopping()
            data = self._prepare(X, y, sample_weight, fresh)
            self._optimizer = self._new_optimizer()
            try:
                self._train(*data, self.epochs, copy.deepcopy(self.schedule), callbacks=callbacks, validation_split=share)
            except DataError as error:  # the Trainer calls it otherwise
                raise DataError(str(error).replace("validation_split", "validation_fraction")) from error
        return self

    def _stopping(self) -> tuple[list[EarlyStopping], float | None]:
        """The callbacks of early stopping, and the share of the rows that it holds out.

        Raises:
            ArgumentError: early_stopping or validation_fraction is something else.
        """
        given = self.early_stopping
        if given is None or (isinstance(given, (bool, np.bool_)) and not given):
            return [], None
        if not isinstance(given, (bool, np.bool_, EarlyStopping)):
            raise ArgumentError(
                f"early_stopping={given!r}: expected True, False, or an object such as nb.callbacks.EarlyStopping(patience=5)"
            )
        share = checks.number(self.validation_fraction, "validation_fraction", "a number between 0 and 1, such as 0.1", lambda v: 0 < v < 1)
        return [copy.deepcopy(given) if isinstance(given, EarlyStopping) else EarlyStopping(patience=PATIENCE, restore_best=True)], share

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Any:
        """One epoch, without a schedule."""
        if self.early_stopping:
            raise ArgumentError(f"partial_fit with early_stopping={self.early_stopping!r}: expected False, since no rows are held out")
        fresh = not hasattr(self, "model_")
        with unchanged_on_error(self):
            data = self._prepare(X, y, sample_weight, fresh, classes)
            if fresh:
                self._optimizer = self._new_optimizer()
            self._train(*data, 1, None)
        return self

    def _new_optimizer(self) -> Any:
        return Adam(0.01) if self.optimizer is None else copy.deepcopy(self.optimizer)

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any, fresh: bool, classes: Any = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """X, targets and weights for the Trainer, and, if `fresh`, a new network."""
        x, y = self._rows(X, fresh, y)
        targets, outputs = self._targets(y, fresh, classes)
        weights = None
        if sample_weight is not None:
            array = check_array(sample_weight, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight")
            weights = check_sample_weight(array, len(x))
        weights = self._all_weights(weights, y)
        if weights is not None:
            count = weights > 0
            if not count.any():
                raise DataError("all weights of the rows are zero: expected at least one above 0")
            if not count.all():
                x, targets, weights = x[count], targets[count], weights[count]
            weights = weights / weights.max()  # the sum of large ones may be infinite
            weights = weights / weights.mean()
        targets = self._scaled(targets, weights, fresh)
        if fresh:
            self._seed = int(check_random_state(self.random_state).randint(SEEDS))
            self.loss_curve_: list[float] = []
            self.model_ = make(self.network, x.shape[1:], outputs)
            self.model_.build(x.shape[1:], backend=self.backend, dtype=x.dtype, seed=self._seed)
            if self.model_.output_shape != (outputs,):
                raise ShapeError(f"the network has outputs of shape {self.model_.output_shape}, expected ({outputs},): end with nb.Dense")
        else:  # what trains is a copy, so that an exception on the way leaves the estimator as it was
            self.model_, self._optimizer = copy.deepcopy((self.model_, self._optimizer))
        if any(isinstance(layer, BatchNorm) for layer in self.model_.walk()):
            if len(x) == 1 and x.ndim == 2:
                raise DataError("got one sample, expected at least two (of weight above 0): batch norm normalises them by their variance")
            if fresh:  # the moving statistics begin at those of the data, which few steps would not reach
                with np.errstate(over="ignore", invalid="ignore"):
                    recalibrate(*self._inputs(x, weights))
                if not all(np.isfinite(array).all() for array in self.model_.buffers.values()):
                    size = f"{np.abs(x).max():.2g}"
                    raise DataError(f"X has numbers up to {size}, whose variance is infinite in {x.dtype}, expected smaller ones: scale X")
        return x, targets, weights

    def _inputs(self, x: Any, weights: np.ndarray | None) -> tuple[Sequential, Any]:
        """What trains, and what it takes. Batch norms weigh the rows of tables, not those of images, which may be augmented."""
        if weights is None or x.ndim != 2:
            return self.model_, x
        return Weighted(self.model_), (x, weights[:, None].astype(x.dtype))

    def _train(self, x: Any, targets: np.ndarray, weights: np.ndarray | None, epochs: int, schedule: Any, **options: Any) -> None:
        model, inputs = self._inputs(x, weights)
        seed = self._seed + len(self.loss_curve_)
        trainer = Trainer(model, self._loss, self._optimizer, schedule=schedule, seed=seed, augment=copy.deepcopy(self.augment))
        self._optimizer = trainer.optimizer
        trainer.fit((inputs, targets), epochs, self.batch_size, progress=bool(self.verbose), sample_weight=weights, **options)
        self.history_ = trainer.history
        self.loss_curve_ = [*self.loss_curve_, *trainer.history["loss"]]
        self.n_iter_ = len(self.loss_curve_)

    # ---------------------------------------------------------------------------------------------- prediction

    def _outputs(self, X: Any) -> np.ndarray:
        """What the network gives for X: (N, outputs)."""
        check_is_fitted(self)
        x, _ = self._rows(X, False)
        with np.errstate(over="ignore", invalid="ignore"):
            outputs = np.asarray(self.model_.predict(x))
        finite = np.isfinite(outputs).all(axis=1)
        if not finite.all():
            raise DataError(f"the outputs for X[{int(finite.argmin())}] are not finite, expected features like those of fit: scale X")
        return outputs

    # ------------------------------------------------------------------------------------------------- helpers

    def _rows(self, X: Any, fresh: bool, *y: Any) -> tuple[np.ndarray, Any]:
        """X in the shape and dtype of the network's input, and y, if given: tables in float32 or float64, images in float32."""
        image_shape = self._image_shape()
        images = image_shape is not None or (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) > 2
        options = {"dtype": np.float32 if images else [np.float64, np.float32], "allow_nd": True, "ensure_all_finite": False}
        with np.errstate(over="ignore"):  # what is too large for float32 is infinite, and refused
            if y:
                x, targets = validate_data(self, X, *y, reset=fresh, **options, **self._checks_of_y)
            else:
                x, targets = validate_data(self, X, reset=False, **options), None
            x = x if fresh else x.astype(self.model_.dtype, copy=False)
        check_finite(x, "X", ": for NaN put SimpleImputer before this in a Pipeline")
        if image_shape is None:
            return x, targets
        if x[0].size != np.prod(image_shape):
            raise ShapeError(f"X has {x[0].size} numbers in a row, expected {np.prod(image_shape)}: image_shape={self.image_shape!r}")
        return x.reshape(len(x), *image_shape), targets

    def _image_shape(self) -> tuple[int, ...] | None:
        """(H, W, C); grey images may lack the C.

        Raises:
            ArgumentError: it is something else.
        """
        given = self.image_shape
        if given is None:
            return None
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            raise ArgumentError(f"image_shape={given!r}: expected (height, width, channels), such as (28, 28, 1)")
        shape = tuple(checks.whole(size, "image_shape") for size in given)
        return shape if len(shape) == 3 else (*shape, 1)


def check_finite(array: np.ndarray, name: str, hint: str = "") -> None:
    """
    Raises:
        DataError: an array has NaN or infinity.
    """
    finite = np.isfinite(array)
    if not finite.all():
        place = ", ".join(map(str, np.unravel_index(int(finite.argmin()), array.shape)))
        value = array[~finite][0]
        raise DataError(f"{name}[{place}] is {value}{'' if np.isnan(value) else f' in {array.dtype}'}, expected finite numbers{hint}")


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an estimator the attributes back that it had, if an exception comes."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
