"""The estimators beyond scikit-learn's checks: its tools around them, options, and bad input."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nbnet as nb
from nbnet.errors import ExtraError, NbnetError
from nbnet.sklearn import CNNClassifier, CNNRegressor

(PIXELS, DIGITS), (PIXELS_TEST, DIGITS_TEST), NAMES = nb.datasets.load("digits")
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
X, Y = PIXELS[:300].reshape(300, 64) / 255.0, NAMES[DIGITS[:300]]
IMAGES = {"image_shape": (8, 8, 1), "network": "digits", "epochs": 4, "random_state": 0}


def table(**options):
    return CNNClassifier(**({"epochs": 5, "random_state": 0} | options))


def threads_of_worker():
    from nbnet.kernels.cpu.threads import LIMIT

    return LIMIT


def without_dropout(shape, outputs):
    return nb.Sequential([nb.Conv2D(8, 3), nb.BatchNorm(), nb.ReLU(), nb.Flatten(), nb.Dense(outputs)])


# ----------------------------------------------------------------------------------------- scikit-learn's tools


def test_grid_search_in_two_processes_leaves_the_parameters_as_they_are():
    optimizer = nb.Adam(0.01)
    steps = make_pipeline(StandardScaler(), table())
    grid = {"cnnclassifier__optimizer": [optimizer, nb.SGD(1e-6), "adam"], "cnnclassifier__network": [None]}
    search = GridSearchCV(steps, grid, cv=3, n_jobs=2).fit(X, Y)
    assert search.best_params_["cnnclassifier__optimizer"] is optimizer
    assert optimizer.steps == 0
    assert optimizer.state == {}
    assert search.best_score_ > 0.8
    assert search.score(X, Y) > 0.95


def test_processes_of_joblib_share_the_cores():
    limits = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_of_worker)() for _ in range(2))
    assert limits == [max(1, joblib.cpu_count() // 2)] * 2


def test_cross_validation_of_images():
    assert cross_val_score(CNNClassifier(**(IMAGES | {"epochs": 12})), PIXELS[:300], Y, cv=3).min() > 0.75


def test_calibration():
    calibrated = CalibratedClassifierCV(table(), cv=3).fit(X, Y)
    assert calibrated.score(X, Y) > 0.95
    np.testing.assert_array_equal(calibrated.classes_, np.sort(NAMES))


def test_copies_are_equal_and_go_on_alike(tmp_path):
    first = CNNClassifier(**IMAGES).fit(X, Y)
    joblib.dump(first, tmp_path / "digits.joblib")
    copies = [joblib.load(tmp_path / "digits.joblib"), pickle.loads(pickle.dumps(first)), copy.deepcopy(first)]
    before = first.predict_proba(X)
    first.partial_fit(X, Y)
    for twin in copies:
        np.testing.assert_array_equal(twin.predict_proba(X), before)
        np.testing.assert_array_equal(twin.partial_fit(X, Y).predict_proba(X), first.predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), before)


def test_clone_has_the_parameters_and_nothing_that_was_learnt():
    twin = clone(CNNClassifier(**IMAGES, schedule=nb.schedules.cosine(0.1), optimizer=nb.Adam(0.02)).fit(X, Y))
    assert repr(twin.optimizer) == "nb.Adam(0.02)"
    assert repr(twin.schedule) == "nb.schedules.cosine(0.1)"
    assert not hasattr(twin, "model_")


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame, labels = pandas.DataFrame(X, columns=[f"pixel{i}" for i in range(64)]), pandas.Series(Y, dtype="category")
    found = table().fit(frame, labels)
    assert found.feature_names_in_[1] == "pixel1"
    np.testing.assert_array_equal(found.predict(frame), table().fit(X, Y).predict(X))


# --------------------------------------------------------------------------------------------- what is trained


def test_digits():
    """As a table and as images. scikit-learn's MLPClassifier reaches 96 to 97 % here: the writers of the test are others."""
    x, x_test = (pixels.reshape(len(pixels), 64) for pixels in (PIXELS, PIXELS_TEST))
    assert CNNClassifier(random_state=0).fit(x, DIGITS).score(x_test, DIGITS_TEST) > 0.96
    assert CNNClassifier(image_shape=(8, 8), epochs=10, random_state=0).fit(x, DIGITS).score(x_test, DIGITS_TEST) > 0.97


def test_networks():
    def own(shape, outputs):
        assert shape == (64,)
        return nb.Sequential([nb.Dense(20), nb.Tanh(), nb.Dense(outputs)])

    kinds = {
        "batchnorm dense batchnorm relu dense": table(),
        "dense tanh dense": table(network=own),
        "conv2d batchnorm relu maxpool2d conv2d batchnorm relu maxpool2d flatten dropout dense": CNNClassifier(**IMAGES),
    }
    for layers, estimator in kinds.items():
        model = estimator.set_params(epochs=1).fit(X, Y).model_
        assert " ".join(type(layer).__name__.lower() for layer in model) == layers
    default = CNNClassifier(image_shape=(8, 8), epochs=1).fit(X, Y)
    assert repr(default.model_) == repr(nb.models.lenet(10))
    assert default.model_.input_shape == (8, 8, 1)


def test_images_in_any_shape_are_the_same():
    flat = CNNClassifier(**IMAGES).fit(X, Y)
    for images in (X.reshape(-1, 8, 8, 1), X.reshape(-1, 8, 8)):
        np.testing.assert_array_equal(CNNClassifier(**IMAGES).fit(images, Y).predict_proba(images), flat.predict_proba(X))
    found = CNNClassifier(**(IMAGES | {"image_shape": None})).fit(X.reshape(-1, 8, 8, 1), Y)
    np.testing.assert_array_equal(found.predict_proba(X.reshape(-1, 8, 8, 1)), flat.predict_proba(X))


@pytest.mark.parametrize(
    "labels", [DIGITS[:300] - 5, DIGITS[:300] > 4, Y.astype(object), DIGITS[:300] * 1.0], ids=["whole", "bool", "object", "float"]
)
def test_labels_of_any_type(labels):
    found = table().fit(X, labels)
    assert found.classes_.dtype == found.predict(X).dtype == labels.dtype
    np.testing.assert_array_equal(found.classes_, np.unique(labels))
    assert found.score(X, labels) > 0.9
    np.testing.assert_array_equal(found.classes_[found.predict_proba(X).argmax(axis=1)], found.predict(X))


def test_dtypes():
    assert table().fit(X, Y).model_.dtype == table().fit(X.astype(int), Y).model_.dtype == np.float64
    assert table().fit(X.astype(np.float32), Y).model_.dtype == CNNClassifier(**IMAGES).fit(X, Y).model_.dtype == np.float32


def test_the_seed_decides():
    first = CNNClassifier(**IMAGES).fit(X, Y)
    np.testing.assert_array_equal(first.predict_proba(X), CNNClassifier(**IMAGES, backend="serial").fit(X, Y).predict_proba(X))
    assert not np.array_equal(first.predict_proba(X), CNNClassifier(**(IMAGES | {"random_state": 1})).fit(X, Y).predict_proba(X))


def test_the_seed_decides_the_order_of_the_rows():
    def network(shape, outputs):
        return nb.Sequential([nb.Dense(outputs, weight_initializer="zeros")])

    first, same, other = (table(network=network, random_state=seed).fit(X, Y).predict_proba(X) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_an_optimizer_is_copied():
    optimizer = nb.Adam(0.01)
    found = table(optimizer=optimizer).fit(X, Y)
    assert found.fit(X, Y).optimizer is optimizer
    assert (optimizer.steps, optimizer.state) == (0, {})


def test_few_steps_on_features_far_from_0():
    """The moving statistics of the features begin at those of the data."""
    x = np.random.default_rng(0).normal(1000, 1, (60, 3))
    y = x[:, 0] > 1000
    assert CNNClassifier(random_state=0).fit(x, y).score(x, y) > 0.95
    assert CNNRegressor(random_state=0).fit(x, x[:, 0]).score(x, x[:, 0]) > 0.9


def test_regression_of_several_numbers_far_from_0():
    x = np.random.default_rng(0).normal(size=(400, 2))
    y = np.stack([1e6 + 1e3 * x[:, 0], x[:, 1] / 1e3, np.full(400, 7.0)], axis=1)
    found = CNNRegressor(random_state=0).fit(x, y)
    assert found.predict(x).shape == (400, 3)
    assert r2_score(y, found.predict(x), multioutput="raw_values")[:2].min() > 0.9
    np.testing.assert_allclose(found.predict(x)[:, 2], 7, atol=0.5)
    assert CNNRegressor(epochs=1).fit(x, y[:, 0]).predict(x).shape == (400,)
    images = CNNRegressor(without_dropout, random_state=0, image_shape=(8, 8)).fit(X, DIGITS[:300])
    assert images.score(X, DIGITS[:300]) > 0.9


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("estimator", [CNNClassifier(random_state=0), CNNRegressor(random_state=0)], ids=lambda e: type(e).__name__)
def test_weights_are_how_often_rows_come(estimator):
    """In one batch, moving statistics included; without weights in batch norm the difference is above 0.01."""
    rng = np.random.default_rng(0)
    x, y, weights = rng.normal(3, 2, (20, 5)), rng.integers(0, 3, 20), rng.integers(0, 4, 20)
    often = clone(estimator).fit(x.repeat(weights, axis=0), y.repeat(weights))
    weighted = clone(estimator).fit(x, y, sample_weight=weights * 10.0)
    predict = "predict_proba" if isinstance(estimator, CNNClassifier) else "predict"
    np.testing.assert_allclose(getattr(weighted, predict)(x), getattr(often, predict)(x), rtol=1e-6, atol=1e-9)
    assert not np.allclose(getattr(clone(estimator).fit(x, y), predict)(x), getattr(often, predict)(x), atol=0.01)


def test_weights_of_images_and_classes():
    rng = np.random.default_rng(0)
    y = rng.random(200) < 0.1
    x = rng.normal(size=(200, 36)) + 0.2 * y[:, None]
    options = {"network": "digits", "image_shape": (6, 6), "epochs": 10, "random_state": 0}
    said = {weight: CNNClassifier(class_weight=weight, **options).fit(x, y).predict(x).mean() for weight in (None, "balanced")}
    assert said[None] < y.mean() < said["balanced"]
    weights = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    by_rows = CNNClassifier(**options).fit(x, y, sample_weight=weights)
    both = CNNClassifier(class_weight={True: 3.0}, **options).fit(x, y, sample_weight=weights)
    by_product = CNNClassifier(**options).fit(x, y, sample_weight=weights * np.where(y, 3, 1))
    np.testing.assert_array_equal(both.predict_proba(x), by_product.predict_proba(x))
    by_class = CNNClassifier(class_weight={True: weights[y][0], False: weights[~y][0]}, **options).fit(x, y)
    np.testing.assert_allclose(by_rows.predict_proba(x), by_class.predict_proba(x), atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"image_shape": (8, 8), "network": "digits"}], ids=["table", "images"])
def test_rows_of_weight_0_do_not_count(options):
    keep = np.arange(300) % 3 > 0
    np.testing.assert_array_equal(
        table(**options).fit(X, Y, sample_weight=keep).predict_proba(X),
        table(**options).fit(X[keep], Y[keep], sample_weight=np.ones(keep.sum())).predict_proba(X),
    )


def test_a_class_of_weight_0_is_known():
    weights = (Y != "three").astype(float)
    found = table().fit(X, Y, sample_weight=weights)
    assert "three" in found.classes_
    assert "three" not in found.predict(X)


def test_sizes_of_weights_and_targets_do_not_matter():
    first = table().fit(X, Y, sample_weight=np.full(300, 1.0)).predict_proba(X)
    np.testing.assert_array_equal(table().fit(X, Y, sample_weight=np.full(300, 1e308)).predict_proba(X), first)
    first = CNNRegressor(random_state=0, epochs=5).fit(X, X[:, 20]).predict(X)
    for size in (1e200, 1e-200, 1e-300):
        np.testing.assert_allclose(CNNRegressor(random_state=0, epochs=5).fit(X, X[:, 20] * size).predict(X), first * size, rtol=1e-6)


def test_weights_of_classes_in_parts_of_the_data():
    """A part, or a fold, may lack classes that the weights name."""
    few = np.isin(Y, ["one", "two"])
    found = table(class_weight={"three": 2.0, "one": 3}).partial_fit(X[few], Y[few], classes=NAMES)
    twin = table().partial_fit(X[few], Y[few], classes=NAMES, sample_weight=np.where(Y[few] == "one", 3.0, 1.0))
    np.testing.assert_array_equal(found.predict_proba(X), twin.predict_proba(X))
    assert table(class_weight=dict.fromkeys(NAMES, 1), epochs=1).fit(X[few], Y[few]).n_iter_ == 1
    assert table().partial_fit(X[few], Y[few], classes=set(NAMES)).partial_fit(X, Y, classes=NAMES[::-1]).n_iter_ == 2


def test_early_stopping_restores_the_best():
    found = table(early_stopping=True, validation_fraction=0.3, epochs=200, schedule=None).fit(X, Y)
    losses = found.history_["val_loss"]
    assert len(losses) < 200
    assert int(np.argmin(losses)) == len(losses) - 11
    never = nb.callbacks.EarlyStopping(patience=200)
    twin = table(early_stopping=never, validation_fraction=0.3, epochs=len(losses) - 10, schedule=None).fit(X, Y)
    np.testing.assert_array_equal(found.predict_proba(X), twin.predict_proba(X))
    soon = table(early_stopping=nb.callbacks.EarlyStopping("loss", patience=1, min_delta=100), epochs=9).fit(X, Y)
    assert soon.n_iter_ == 2


def test_warm_start_goes_on_and_fit_begins_again():
    found = table(warm_start=True)
    found.fit(X, Y).fit(X, Y)
    assert found.n_iter_ == len(found.loss_curve_) == 10
    assert found.loss_curve_[5] < found.loss_curve_[1]
    first = found.set_params(warm_start=False).fit(X, Y)
    assert first.loss_curve_ == table().fit(X, Y).loss_curve_


def test_partial_fit_in_turns_with_and_without_weights():
    found = table()
    for part in range(30):
        rows = slice(part % 3 * 100, part % 3 * 100 + 100)
        weights = None if part % 2 else np.random.default_rng(part).random(100)
        found.partial_fit(X[rows], Y[rows], classes=NAMES if part == 0 else None, sample_weight=weights)
    assert found.n_iter_ == 30
    assert found._optimizer.steps == 60
    assert found.score(X, Y) > 0.95
    after = table().fit(X, Y)
    assert after.partial_fit(X, Y).n_iter_ == 6


def test_schedules_and_augmentation_reach_the_trainer(capsys):
    found = table(schedule="step", optimizer=nb.SGD(0.5), epochs=4).fit(X, Y)
    np.testing.assert_allclose(found.history_["lr"], [0.5, 0.5, 0.05, 0.005])
    same = CNNClassifier(**IMAGES).fit(X, Y)
    moved = CNNClassifier(**IMAGES, augment=["crop"]).fit(X, Y)
    assert moved.loss_curve_[0] > same.loss_curve_[0]
    table(verbose=True, epochs=1).fit(X, Y)
    assert "epoch 1/1" in "".join(capsys.readouterr())


# ---------------------------------------------------------------------------------------------------- bad input

HOLE = X.copy()
HOLE[3, 5] = np.nan
SEEN = table().fit(X, Y)
NUMBERS = CNNRegressor(epochs=1, random_state=0).fit(X, np.stack([DIGITS[:300]] * 2, axis=1))
OTHER = np.where(Y == "one", "ten", Y)
BAD = {
    "NaN, fit": (SEEN, lambda e: e.fit(HOLE, Y), r"X\[3, 5\] is nan, expected finite numbers: for NaN put SimpleImputer"),
    "no y": (SEEN, lambda e: e.set_params(warm_start=True).fit(X, None), "requires y to be passed, but the target y is None"),
    "NaN, partial_fit": (SEEN, lambda e: e.partial_fit(HOLE, Y), r"X\[3, 5\] is nan"),
    "NaN, predict": (SEEN, lambda e: e.predict(HOLE), r"X\[3, 5\] is nan"),
    "class, partial_fit": (
        SEEN,
        lambda e: e.partial_fit(X, OTHER),
        "the label 'ten', which was not there before: expected 'eight'",
    ),
    "class, score": (SEEN, lambda e: e.score(X, OTHER), "the label 'ten', which"),
    "class, warm": (SEEN, lambda e: e.set_params(warm_start=True).fit(X, OTHER), "the label 'ten', which"),
    "numbers for names": (SEEN, lambda e: e.score(X, DIGITS[:300]), r"the label \d, which was not there before: expected 'eight'"),
    "classes again": (SEEN, lambda e: e.partial_fit(X, Y, classes=["a", "b"]), r"classes=\['a', 'b'\] differ from those before, \['eight'"),
    "no classes": (table(), lambda e: e.partial_fit(X, Y), r"the first partial_fit needs all labels: partial_fit\(X, y, classes="),
    "not all classes": (
        table(),
        lambda e: e.partial_fit(X, Y, classes=["one", "two"]),
        "which was not there before: expected 'one', 'two'$",
    ),
    "balanced": (table(class_weight="balanced"), lambda e: e.partial_fit(X, Y, classes=NAMES), "does not know how often classes come"),
    "held out": (table(early_stopping=True), lambda e: e.partial_fit(X, Y, classes=NAMES), "expected False, since no rows are held out"),
    "one sample": (SEEN, lambda e: e.fit(X[:1], Y[:1]), "got one sample, expected at least two"),
    "weights 0": (SEEN, lambda e: e.fit(X, Y, sample_weight=np.zeros(300)), "weights of the rows are zero: expected at least one above 0"),
    "weight below 0": (SEEN, lambda e: e.fit(X, Y, sample_weight=-np.ones(300)), r"sample_weight\[0\] is -1"),
    "name": (
        SEEN,
        lambda e: e.set_params(network="lenett", image_shape=(8, 8)).fit(X, Y),
        "unknown network 'lenett': did you mean 'lenet'",
    ),
    "no image": (SEEN, lambda e: e.set_params(network="lenet").fit(X, Y), r"'lenet' is for images, got X with rows of shape \(64,\): give"),
    "shape": (SEEN, lambda e: e.set_params(image_shape=(7, 8)).fit(X, Y), r"64 numbers in a row, expected 56: image_shape=\(7, 8\)"),
    "no shape": (SEEN, lambda e: e.set_params(image_shape=64).fit(X, Y), r"image_shape=64: expected \(height, width, channels\)"),
    "outputs": (SEEN, lambda e: e.set_params(network=lambda *_: nb.Sequential([nb.Dense(3)])).fit(X, Y), r"shape \(3,\), expected \(10,\)"),
    "no network": (
        SEEN,
        lambda e: e.set_params(network=lambda *_: nb.Dense(10)).fit(X, Y),
        "network returned Dense, expected a new nb.Seq",
    ),
    "built": (SEEN, lambda e: e.set_params(network=lambda *_: e.model_).fit(X, Y), "a Sequential that is built already, expected a new"),
    "backend": (SEEN, lambda e: e.set_params(backend="gpu").fit(X, Y), "unknown backend 'gpu'"),
    "optimizer": (SEEN, lambda e: e.set_params(optimizer="adm").fit(X, Y), "unknown optimizer 'adm'"),
    "diverges": (SEEN, lambda e: e.set_params(optimizer=nb.SGD(1e300)).fit(X, Y), "NaN or infinity"),
    "diverges, warm": (SEEN, lambda e: e.set_params(optimizer=nb.SGD(1e300), warm_start=True).fit(X, Y), "NaN or infinity"),
    "early_stopping": (SEEN, lambda e: e.set_params(early_stopping="yes").fit(X, Y), "early_stopping='yes': expected True, False, or an"),
    "another callback": (
        SEEN,
        lambda e: e.set_params(early_stopping=[nb.callbacks.EarlyStopping()]).fit(X, Y),
        r"early_stopping=\[nb.callbacks.EarlyStopping\(\)\]: expected True",
    ),
    "share": (SEEN, lambda e: e.set_params(early_stopping=True, validation_fraction=None).fit(X, Y), "validation_fraction=None: expected"),
    "share 1": (SEEN, lambda e: e.set_params(early_stopping=True, validation_fraction=1).fit(X, Y), "validation_fraction=1: expected a"),
    "none held out": (
        SEEN,
        lambda e: e.set_params(early_stopping=True).fit(X[:10], np.arange(10)),
        "validation_fraction=0.1 leaves none of 10 rows: expected at least two rows of some class",
    ),
    "weight of a class": (SEEN, lambda e: e.set_params(class_weight={"one": -1}).fit(X, Y), r"class_weight\['one'\]=-1: expected a finite"),
    "NaN for a class": (SEEN, lambda e: e.set_params(class_weight={"one": np.nan}).fit(X, Y), r"class_weight\['one'\]=nan: expected a fin"),
    "weight of no class": (
        SEEN,
        lambda e: e.set_params(class_weight={"one": 1, "ten": 2}).fit(X, Y),
        "class_weight has the label 'ten', which y never has, expected 'eight', 'five'",
    ),
    "weights in a list": (SEEN, lambda e: e.set_params(class_weight=[1] * 10).fit(X, Y), r"class_weight=\[1, .*\]: expected None, '"),
    "a class": (SEEN, lambda e: e.set_params(network=nb.Sequential).fit(X, Y), r"Sequential'?>: expected a name, or a function \("),
    "a model": (SEEN, lambda e: e.set_params(network=nb.Sequential([nb.Dense(10)])).fit(X, Y), "expected a name, or a function"),
    "one argument": (SEEN, lambda e: e.set_params(network=nb.models.lenet).fit(X, Y), "expected a name, or a function"),
    "classes, none": (table(), lambda e: e.partial_fit(X, Y, classes=[]), r"classes=\[\]: expected all labels, such as np.unique"),
    "classes, number": (SEEN, lambda e: e.partial_fit(X, Y, classes=3), r"classes=3: expected all labels, such as np.unique"),
    "mixed labels": (
        SEEN,
        lambda e: e.fit(X, np.where(np.arange(300) == 1, None, Y)),
        r"types that do not mix \(TypeError: .*\), expected numbers, or strings alone",
    ),
    "no labels": (table().fit(X, DIGITS[:300]), lambda e: e.score(X, np.array([None] * 300)), "the label None, which was not there"),
    "too large for float32": (table().fit(X.astype(np.float32), Y), lambda e: e.predict(X + 1e300), r"X\[0, 0\] is inf in float32"),
    "large features": (SEEN, lambda e: e.fit(X.astype(np.float32) * 1e30, Y), r"up to 1e\+30, whose variance is infinite in float32"),
    "large outputs": (
        NUMBERS,
        lambda e: e.predict(np.full((2, 64), 1.7e308)),
        r"the outputs for X\[0\] are not finite, expected features like those of fit: scale X",
    ),
    "nested": (SEEN, lambda e: e.set_params(epochs=1, optimizer__lr=1), "got optimizer__lr, but optimizer=None has no such parameters"),
    "None in y": (NUMBERS, lambda e: e.fit(X, np.where(DIGITS[:300] == DIGITS[2], None, 1.0)), r"y\[2\] is nan, expected finite numbers$"),
    "names for numbers": (NUMBERS, lambda e: e.fit(X, Y), "y has dtype <U5 .*, expected numbers: for labels use CNNClassifier"),
    "sparse y": (NUMBERS, lambda e: e.fit(X, csr_matrix(X[:, :2])), r"y is a sparse csr_.*, expected a dense array: write y.toarray\(\)"),
    "outputs of y": (NUMBERS, lambda e: e.partial_fit(X, X[:, :3]), "y has 3 numbers in a row, expected 2 as before"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_changes_nothing(case):
    estimator, call, message = BAD[case]
    estimator = copy.deepcopy(estimator)
    before, attributes = (estimator.predict(X) if hasattr(estimator, "model_") else None), set(vars(estimator))
    curve = copy.copy(getattr(estimator, "loss_curve_", None))
    with pytest.raises(ValueError if case == "no y" else NbnetError, match=message) as caught:
        call(estimator)
    assert "\n" not in str(caught.value)
    assert set(vars(estimator)) == attributes
    assert getattr(estimator, "loss_curve_", None) == curve
    if before is not None:
        estimator.set_params(image_shape=None)
        np.testing.assert_array_equal(estimator.predict(X), before)


def test_without_scikit_learn_one_line_says_what_to_install():
    code = "import sys, nbnet; sys.modules['sklearn'] = None\ntry:\n import nbnet.sklearn\nexcept nbnet.errors.ExtraError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert "nbnet.sklearn needs scikit-learn 1.6 or later" in done.stdout
    assert "pip install 'nbnet[sklearn]'" in done.stdout
    assert issubclass(ExtraError, ImportError)
