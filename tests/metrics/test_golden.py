"""Metrics of scikit-learn 1.9: NUMBERS holds what MADE_BY gives, and
`PYTHONPATH=tests python tests/metrics/test_golden.py` prints it again."""

import numpy as np
import pytest
from tolerances import assert_close

from nbnet import metrics as M

N = np.arange(60)
LOGITS = np.round(2 * np.sin(1.7 * np.arange(240)), 1).reshape(60, 4)  # with ties
LABELS = np.where(N % 3 > 0, LOGITS.argmax(axis=1), N * 7 % 11 % 4)
TWO, BITS = LABELS // 2, (LABELS[:, None] + np.arange(3)) % 5 % 2
SCORES = LOGITS[:, 1:] + BITS
Y = np.cos(N)[:, None] * [1, 2, 3] + 1000
P = Y + np.sin(3 * N)[:, None]
W = N % 5 / 2
CASES = {  # the metric, prediction, target
    "accuracy": (M.Accuracy(), LOGITS, LABELS),
    "accuracy of bits": (M.Accuracy(0.5), SCORES[:, :1], BITS[:, 0]),
    "top_2_accuracy": (M.TopAccuracy(2), LOGITS + 1e-3 * SCORES[:, [0, 1, 2, 0]], LABELS),
    "precision": (M.Precision(), LOGITS, LABELS),
    "recall": (M.Recall(), LOGITS, LABELS),
    "f1": (M.F1(), LOGITS, LABELS),
    "f1 without a class": (M.F1(), LOGITS - [0, 0, 0, 100], LABELS % 3),
    "precision of two": (M.Precision(), LOGITS[:, :2], TWO),
    "recall of two": (M.Recall(), LOGITS[:, :2], TWO),
    "f1 of two": (M.F1(), LOGITS[:, :2], TWO),
    "f1 of bits": (M.F1(0.0), SCORES, BITS),
    "f1 of one bit": (M.F1(0.0), SCORES[:, :1], 2 * BITS[:, 0] - 1),
    "auc of two": (M.AUC(), LOGITS[:, :2], TWO),
    "auc": (M.AUC(), LOGITS, LABELS),
    "auc of bits": (M.AUC(0.0), SCORES, BITS),
    "auc of one bit": (M.AUC(0.5), SCORES[:, :1], BITS[:, :1]),
    "mae": (M.MeanAbsoluteError(), P, Y),
    "r2": (M.R2(), P, Y),
    "r2 of one": (M.R2(), P[:, :1], Y[:, 0]),
    "r2 of constants": (M.R2(), P, Y * 0 + 5),
}
MADE_BY = {
    "accuracy": "accuracy_score(labels, said, sample_weight=w)",
    "accuracy of bits": "accuracy_score(bits[:, 0], scores[:, 0] > 0.5, sample_weight=w)",
    "top_2_accuracy": "top_k_accuracy_score(labels, logits + 1e-3 * scores[:, [0, 1, 2, 0]], k=2, sample_weight=w)",
    "precision": "precision_score(labels, said, average='macro', sample_weight=w)",
    "recall": "recall_score(labels, said, average='macro', sample_weight=w)",
    "f1": "f1_score(labels, said, average='macro', sample_weight=w)",
    "f1 without a class": "f1_score(labels % 3, logits[:, :3].argmax(1), average='macro', sample_weight=w)",
    "precision of two": "precision_score(two, said_of_two, sample_weight=w)",
    "recall of two": "recall_score(two, said_of_two, sample_weight=w)",
    "f1 of two": "f1_score(two, said_of_two, sample_weight=w)",
    "f1 of bits": "f1_score(bits, scores > 0, average='macro', sample_weight=w)",
    "f1 of one bit": "f1_score(bits[:, 0], scores[:, 0] > 0, sample_weight=w)",
    "auc of two": "roc_auc_score(two, logits[:, 1] - logits[:, 0], sample_weight=w)",
    "auc": "roc_auc_score(labels, scipy.special.softmax(logits, axis=1), multi_class='ovr', sample_weight=w)",
    "auc of bits": "roc_auc_score(bits, scores, average='macro', sample_weight=w)",
    "auc of one bit": "roc_auc_score(bits[:, 0], scores[:, 0], sample_weight=w)",
    "mae": "mean_absolute_error(y, p, sample_weight=w)",
    "r2": "r2_score(y, p, sample_weight=w)",
    "r2 of one": "r2_score(y[:, 0], p[:, 0], sample_weight=w)",
    "r2 of constants": "r2_score(y * 0 + 5, p, sample_weight=w)",
}
NUMBERS = {
    "accuracy": (0.6666666666666666, 0.6666666666666666),
    "accuracy of bits": (0.5833333333333334, 0.625),
    "top_2_accuracy": (0.8166666666666667, 0.8083333333333333),
    "precision": (0.665922619047619, 0.665922619047619),
    "recall": (0.6678685897435896, 0.6699688945484928),
    "f1": (0.6664986559139785, 0.6670113666935701),
    "f1 without a class": (0.6331533963112911, 0.6479593504601499),
    "precision of two": (0.5172413793103449, 0.5254237288135594),
    "recall of two": (0.5172413793103449, 0.543859649122807),
    "f1 of two": (0.5172413793103449, 0.5344827586206896),
    "f1 of bits": (0.44973682939784637, 0.46057475455641034),
    "f1 of one bit": (0.5423728813559322, 0.559322033898305),
    "auc of two": (0.5050055617352613, 0.5213032581453635),
    "auc": (0.6926703159183213, 0.6917322849941617),
    "auc of bits": (0.6169736552028219, 0.6337616406581924),
    "auc of one bit": (0.6791294642857142, 0.7362237762237762),
    "mae": (0.6521220552807373, 0.6664272073314057),
    "r2": (0.5277864697609819, 0.5147242536981754),
    "r2 of one": (-0.04079716869008565, -0.06958735919586512),
    "r2 of constants": (0.0, 0.0),
}  # without weights, with W

cases = pytest.mark.parametrize("name", CASES)


@cases
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [60, 7, 1])
def test_metrics_are_those_of_scikit_learn_however_rows_are_cut(name, weighted, size):
    metric, prediction, target = CASES[name]
    metric.reset()
    for start in range(0, 60, size):
        rows = slice(start, start + size)
        metric.update(prediction[rows], target[rows], W[rows] if weighted else None)
    assert_close(metric.result(), NUMBERS[name][weighted], "golden")


def test_the_report():
    report = M.Report(np.bincount(4 * LABELS + LOGITS.argmax(axis=1), minlength=16).reshape(4, 4), ["a", "b", "c", "d"])
    assert_close(report.precision, REPORT["precision"], "golden")
    assert_close(report.recall, REPORT["recall"], "golden")
    assert_close(report.f1, REPORT["f1-score"], "golden")
    assert report.support.tolist() == REPORT["support"]
    assert_close(report.accuracy, REPORT["accuracy"], "golden")


REPORT = {
    "precision": [0.6666666666666666, 0.6666666666666666, 0.6875, 0.6428571428571429],
    "recall": [0.625, 0.6666666666666666, 0.6875, 0.6923076923076923],
    "f1-score": [0.6451612903225806, 0.6666666666666666, 0.6875, 0.6666666666666666],
    "support": [16.0, 15.0, 16.0, 13.0],
    "accuracy": 0.6666666666666666,
}  # of classification_report(labels, said, output_dict=True)


def record():
    import scipy
    import sklearn.metrics

    names = vars(sklearn.metrics) | {"logits": LOGITS, "labels": LABELS, "two": TWO, "bits": BITS, "scores": SCORES, "y": Y, "p": P}
    names |= {"said": LOGITS.argmax(axis=1), "said_of_two": LOGITS[:, :2].argmax(axis=1), "scipy": scipy}
    print("NUMBERS = {")
    for name, code in MADE_BY.items():
        print(f"    {name!r}: ({float(eval(code, names | {'w': None}))!r}, {float(eval(code, names | {'w': W}))!r}),")
    report = sklearn.metrics.classification_report(LABELS, LOGITS.argmax(axis=1), output_dict=True)
    columns = {key: [float(report[str(c)][key]) for c in range(4)] for key in ("precision", "recall", "f1-score", "support")}
    print("}\nREPORT =", columns | {"accuracy": report["accuracy"]})


if __name__ == "__main__":
    record()
