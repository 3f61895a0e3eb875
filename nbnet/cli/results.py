"""What a run folder shows: pictures, and one page with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nbnet import augment, plots
from nbnet.cli import page, runs
from nbnet.metrics import Report
from nbnet.runtime.lazy import Lazy
from nbnet.training.trainer import Trainer
from nbnet.version import __version__

SHOWN = 8  # images, and epochs, of augmented.png
MOST_CLASSIFIED = 10_000  # training images, at the end
WIDE_GAP = 0.1  # gap between training and test accuracy that gets a hint
CURVES, CONFUSION, MISTAKES, AUGMENTED, PAGE = "curves.png", "confusion.png", "mistakes.png", "augmented.png", "report.html"
CAPTIONS = {
    CURVES: "Loss and accuracy by epoch. Training values are measured during training, on augmented images if there is augmentation.",
    CONFUSION: "True and predicted class of the test images.",
    MISTAKES: "The test images that the model got wrong with the highest confidence.",
    AUGMENTED: "Training images, and their augmented versions in the first epochs.",
}


def is_complete(folder: Path) -> bool:
    """Whether a run folder has all that is drawn and written at the end."""
    return all((folder / name).exists() for name in (CURVES, CONFUSION, MISTAKES, PAGE))


def draw_augmented(trainer: Trainer, x: np.ndarray, folder: Path) -> None:
    """Draw a few training images as they are, and in the first epochs.

    Args:
        x: (N, H, W, C) uint8, the training images. folder: of the run.
    """
    rows = _spread(len(x), SHOWN)
    options: dict[str, Any] = {"seed": trainer.seed, "backend": trainer.model.backend}
    epochs = [augment.apply(trainer.augment, x, rows, epoch=epoch, **options) for epoch in range(SHOWN)]
    plots.augmented(x[rows], np.stack(epochs), folder / AUGMENTED)


def report(trainer: Trainer, config: runs.Config, train: Any, test: Any, folder: Path) -> None:
    """Print the accuracies, draw the confusion matrix and the mistakes, and write the page.

    Args:
        train, test: images (N, H, W, C) uint8 and classes (N,). folder: of the run, with the learning curves.
    Raises:
        DataError: a picture or the page cannot be written.
    """
    model, names = trainer.model, config.class_names
    (x, y), (x_test, y_test) = train, test
    probabilities = model.predict_proba(x_test)
    said = probabilities.argmax(axis=1)
    matrix = np.zeros((len(names), len(names)), np.int64)
    np.add.at(matrix, (y_test, said), 1)
    plots.confusion(matrix, names, folder / CONFUSION)
    plots.mistakes(x_test, y_test, said, probabilities, names, folder / MISTAKES)
    rows = _spread(len(x), MOST_CLASSIFIED)
    some = x if len(rows) == len(x) else x.subset(rows) if isinstance(x, Lazy) else x[rows]
    right = float((model.predict(some).argmax(axis=1) == y[rows]).mean())
    wrong = int((said != y_test).sum())
    accuracy = 1 - wrong / len(y_test)
    print(f"test accuracy: {_percent(accuracy)} ({wrong:,} of {len(y_test):,} wrong)")
    print(f"training accuracy: {_percent(right)}, a gap of {100 * (right - accuracy):.2f} points")
    of = "the training images" if len(rows) == len(x) else f"{len(rows):,} of the training images"
    result = [
        f"Accuracy on the test images: {_percent(accuracy)} ({wrong:,} of {len(y_test):,} wrong).",
        f"Accuracy on {of}, without augmentation: {_percent(right)}. The gap is {100 * (right - accuracy):.2f} points.",
    ]
    if right - accuracy > WIDE_GAP:
        result.append(
            "A gap this wide usually means overfitting. To narrow it, add images, use more augmentation (--augment) or more "
            "--label-smoothing, or choose a smaller model."
        )
    _write_page(trainer, config, len(x), result, Report(matrix, names), folder)


def _write_page(trainer: Trainer, config: runs.Config, rows: int, result: list[str], classes: Report, folder: Path) -> None:
    seconds, parameters = sum(trainer.history["seconds"]), sum(param.value.size for param in trainer.model.params.values())
    by_class = [
        f"{name}: precision {_percent(precision)}, recall {_percent(recall)}, F1 {_percent(f1)}, {count:,} test images"
        for name, precision, recall, f1, count in zip(classes.class_names, classes.precision, classes.recall, classes.f1, classes.support)
    ]
    how = [
        f"{config.model}: {parameters:,} parameters, on images of {'x'.join(map(str, config.image_shape))}.",
        f"{config.duration} of {rows:,} images in batches of {config.batch_size}: {seconds:.1f} s on {config.backend}.",
        f"Optimizer {config.optimizer}, learning rate {config.lr:g}, weight decay {config.weight_decay:g}, schedule {config.schedule}, "
        f"label smoothing {config.label_smoothing:g}, augmentation {', '.join(config.augment) or 'none'}, seed {config.seed}.",
    ]
    pictures = {name: (folder / name, caption) for name, caption in CAPTIONS.items() if (folder / name).exists()}
    sections = [
        page.Section("result", "Result", result, [pictures[CURVES]]),
        page.Section("classes", "Classes", by_class, [pictures[CONFUSION], pictures[MISTAKES]]),
        page.Section("training", "Training", how, [pictures[AUGMENTED]] if AUGMENTED in pictures else []),
    ]
    title = f"{Path(config.data).name}, {config.model}"
    lead = f"A run of nbnet {config.nbnet}, saved in {folder.resolve().name}."
    page.write(folder / PAGE, title, lead, sections, f"Written by nbnet {__version__}. The pictures are also beside this page.")


def _spread(count: int, most: int) -> np.ndarray:
    """Up to so many row numbers, evenly over all rows."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
