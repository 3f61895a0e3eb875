"""A small network and its trainer."""

import nbnet as nb


def small_model(backend="serial", dtype="float64", seed=0):
    model = nb.Sequential(
        [
            nb.Conv2D(4, 3),
            nb.BatchNorm(),
            nb.ReLU(),
            nb.MaxPool2D(2),
            nb.Residual([nb.Conv2D(4, 3)]),
            nb.Flatten(),
            nb.Dropout(0.2),
            nb.Dense(3),
        ]
    )
    model.build((6, 6, 1), backend=backend, dtype=dtype, seed=seed)
    return model


def small_trainer(backend="serial", dtype="float64", **options):
    options.setdefault("optimizer", nb.Adam(3e-3))
    return nb.Trainer(small_model(backend, dtype), **options)


def bits(trainer):
    """Everything that a run carries on, as bytes."""
    arrays = trainer.model.state() | trainer.optimizer.state
    return {name: array.tobytes() for name, array in arrays.items()}
