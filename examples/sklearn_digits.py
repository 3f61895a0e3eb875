"""The digits of scikit-learn: its MLPClassifier and nbnet's estimators, in turns, on five splits. Needs scikit-learn."""

import time
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from nbnet.sklearn import CNNClassifier

warnings.simplefilter("ignore", ConvergenceWarning)  # MLPClassifier has not converged after its 200 epochs
ESTIMATORS = {
    "MLPClassifier": MLPClassifier(),
    "CNNClassifier, table": CNNClassifier(),
    "CNNClassifier, images": CNNClassifier(image_shape=(8, 8, 1), epochs=20),
}
x, y = load_digits(return_X_y=True)

for estimator in list(ESTIMATORS.values())[1:]:
    estimator.fit(x, y)  # compile the kernels
results = {name: [] for name in ESTIMATORS}
for seed in range(5):
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.25, random_state=seed, stratify=y)
    for name, estimator in ESTIMATORS.items():
        began, began_cpu = time.perf_counter(), time.process_time()
        estimator.set_params(random_state=seed).fit(x_train, y_train)
        taken, taken_cpu = time.perf_counter() - began, time.process_time() - began_cpu
        results[name].append((estimator.score(x_test, y_test), taken, taken_cpu))

print("means of five splits; seconds of fit: medians")
for name, rows in results.items():
    accuracy, seconds, cpu = zip(*rows)
    print(f"{name:22} test accuracy {np.mean(accuracy):.1%}   {np.median(seconds):5.2f} s   {np.median(cpu):5.2f} s of processor time")
