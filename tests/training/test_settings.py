"""What decides how a run continues is saved with it: options of the optimiser, and which loss and schedule it had."""

import json
import math
import warnings

import numpy as np
import pytest

import nbnet as nb
from nbnet.errors import ArgumentError, CheckpointError
from nbnet.training import checkpoint

from .small import bits, small_model, small_trainer


def own_schedule(progress):
    return 1 - progress


def other_schedule(progress):
    return 1.0


@pytest.mark.parametrize("through_a_file", [False, True])
def test_options_are_taken_over(data, tmp_path, through_a_file):
    """So the run continues bit for bit, and a warning names what differed."""
    first = small_trainer(optimizer=nb.SGD(0.1, momentum=0.9), clip_norm=2.0)
    first.fit(data, epochs=1, batch_size=16)
    first.optimizer.lr, first.optimizer.momentum, first.clip_norm, first.accumulate = 1e-3, 0.5, 1.0, 2
    second = small_trainer(optimizer=nb.SGD(0.1, momentum=0.9, nesterov=True), clip_norm=2.0)
    path = tmp_path / "run.safetensors"
    first.save(path)
    wanted = (
        r"settings differ: lr is 0\.001 as in the file, not 0\.1; momentum is 0\.5 as in the file, not 0\.9; "
        r"nesterov is False as in the file, not True; clip_norm is 1\.0 as in the file, not 2\.0; accumulate is 2 as in the file, not 1$"
    )
    continue_run = (lambda: second.restore(path)) if through_a_file else (lambda: second.load_state(first.state()))
    with pytest.warns(UserWarning, match=wanted) as said:
        continue_run()
    assert [warning.filename for warning in said] == [__file__]
    for trainer in (first, second):
        trainer.fit(data, epochs=3, batch_size=16)
    assert bits(first) == bits(second)
    assert repr(first) == repr(second)


@pytest.mark.parametrize(
    ("saved", "own", "message"),
    [
        ({"schedule": "cosine"}, {}, r"schedule stays nb\.schedules\.constant\(\), was nb\.schedules\.cosine\(\) in the file$"),
        ({"schedule": nb.schedules.cosine(0.1)}, {"schedule": "cosine"}, r"was nb\.schedules\.cosine\(0\.1\) in the file$"),
        ({"schedule": own_schedule}, {"schedule": other_schedule}, r"other_schedule, was .*\.own_schedule in the file$"),
    ],
)
def test_what_cannot_be_taken_over_is_named(data, tmp_path, saved, own, message):
    small_trainer(**saved).save(tmp_path / "run")
    with pytest.warns(UserWarning, match=message):
        small_trainer(**own).restore(tmp_path / "run")


def test_another_loss_is_named(tmp_path):
    def trainer(loss):
        model = nb.Sequential([nb.Dense(2)])
        model.build((3,), backend="serial")
        return nb.Trainer(model, loss=loss, optimizer=nb.SGD(0.1))

    trainer("mean_squared_error").save(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"settings differ: loss stays .*sum.*, was .*mean.* in the file$"):
        trainer("sum_squared_error").restore(tmp_path / "run")


def test_equal_settings_are_no_news(data, tmp_path):
    options = {"schedule": "one_cycle", "clip_norm": 1.0, "accumulate": 2}
    small_trainer(**options).save(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_trainer(**options).restore(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", "0.1"),
        ("lr", None),
        ("beta1", 1.5),
        ("clip_norm", 0),
        ("clip_norm", "1"),
        ("accumulate", 0),
        ("accumulate", 1.5),
        ("loss", ["x"]),
        ("schedule", 3),
        ("extra", 1),
    ],
)
def test_damaged_settings(data, tmp_path, name, value):
    state = small_trainer().state()
    settings = json.loads(json.dumps(state.run["settings"]))
    (settings["optimizer"] if name in settings["optimizer"] else settings)[name] = value
    state.run["settings"] = settings
    trainer = small_trainer()
    trainer.fit(data, epochs=1)
    before = bits(trainer), trainer.optimizer.options, trainer.step
    with pytest.raises(CheckpointError, match=r"the description of the run is damaged|the settings of the optimiser are damaged"):
        trainer.load_state(state)
    assert (bits(trainer), trainer.optimizer.options, trainer.step) == before


def test_a_file_without_settings_still_loads(data):
    """Those of nbnet 0.1 have none."""
    first = small_trainer()
    first.fit(data, epochs=1)
    state = first.state()
    del state.run["settings"], state.run["schedule_epochs"]
    second = small_trainer()
    second.load_state(state)
    assert bits(first) == bits(second)
    assert second.schedule_epochs == 0


def test_an_older_file_still_loads(data, tmp_path):
    """Without what was added since: the factor of the learning rate, groups, the description of the average."""
    first = small_trainer()
    first.fit(data, epochs=1)
    arrays, run = first.state()
    settings = {name: value for name, value in run["settings"].items() if name != "average"}
    settings["optimizer"] = {name: value for name, value in settings["optimizer"].items() if name not in ("groups", "amsgrad")}
    run = {name: value for name, value in run.items() if name != "lr_factor"} | {"settings": settings}
    checkpoint.write(checkpoint.State(arrays, run), tmp_path / "run")
    second = small_trainer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.restore(tmp_path / "run")
    assert bits(first) == bits(second)
    assert second.lr_factor == 1


def test_an_optimizer_of_ones_own_with_other_arguments(tmp_path):
    class Own(nb.SGD):
        def __init__(self, lr, names):
            super().__init__(lr, momentum=0.5)
            self.names = names

    first, second = (nb.Trainer(small_model(), optimizer=Own(lr, ["a"])) for lr in (0.1, 0.2))
    first.save(tmp_path / "run")
    with pytest.warns(UserWarning, match=r"lr is 0\.1 as in the file, not 0\.2$"):
        second.restore(tmp_path / "run")
    assert (second.optimizer.lr, second.optimizer.names) == (0.1, ["a"])


NUMPY = {
    "seed": {"seed": np.int64(2)},
    "lr": {"optimizer": nb.Adam(np.float32(1e-2))},
    "schedule": {"schedule": lambda progress: np.float32(1 - progress)},
    "schedule of an array": {"schedule": lambda progress: np.array(1 - progress)},
    "clip_norm and accumulate": {"clip_norm": np.float32(1), "accumulate": np.int64(2)},
}


@pytest.mark.parametrize("name", NUMPY)
def test_numbers_of_numpy_can_be_saved(data, tmp_path, name):
    class Column(nb.callbacks.Callback):
        def on_epoch_end(self, trainer):
            trainer.history["own"] = [np.float32(0.5)] * trainer.epoch

        def on_batch_end(self, trainer):
            trainer.save(tmp_path / "run")

    options = NUMPY[name]
    trainer = small_trainer(**options)
    trainer.fit(data, np.int64(2), np.int64(32), callbacks=[Column(), nb.callbacks.CSVLogger(tmp_path / "log.csv")])
    trainer.optimizer.lr = np.float32(trainer.optimizer.lr)
    trainer.save(tmp_path / "run")
    second = small_trainer(**(options | {"optimizer": nb.Adam(float(trainer.optimizer.lr))}))
    second.load_state(trainer.state())
    second.restore(tmp_path / "run")
    assert second.history["own"] == [0.5, 0.5]
    assert bits(second) == bits(trainer)


@pytest.mark.parametrize("clip_norm", [math.inf, math.nan, 0, "1"])
def test_a_limit_that_could_not_be_restored(clip_norm):
    """A JSON file has no infinity."""
    with pytest.raises(ArgumentError, match=r"clip_norm=.*: expected a finite number above 0, or None"):
        small_trainer(clip_norm=clip_norm)


def test_a_history_that_is_no_number_cannot_be_saved(tmp_path):
    trainer = small_trainer()
    trainer.history["own"] = [object()]
    with pytest.raises(CheckpointError, match="a run can be saved with numbers in its history, got <object"):
        trainer.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(data, tmp_path, value):
    damaged, trainer = small_trainer(), small_trainer()
    damaged.model.params["7.dense.weight"].value[0, 1] = value
    damaged.save(tmp_path / "run")
    trainer.save(tmp_path / "older")
    older = bits(trainer)
    trainer.fit(data, epochs=1)
    before = bits(trainer)
    for load in (trainer.restore, trainer.model.load_weights):
        with pytest.raises(
            CheckpointError, match=r"'7\.dense\.weight' contains NaN or infinity, expected trained weights: use an older file"
        ):
            load(tmp_path / "run")
    assert bits(trainer) == before
    trainer.restore(tmp_path / "older")
    assert bits(trainer) == older


@pytest.mark.parametrize(("make", "option"), [(nb.Adam, "amsgrad"), (nb.AdamW, "amsgrad"), (nb.RMSProp, "centered")])
def test_options_that_need_other_state_than_the_file_has(make, option):
    trainer = small_trainer(optimizer=make())
    state = trainer.state()
    state.run["settings"] = state.run["settings"] | {"optimizer": state.run["settings"]["optimizer"] | {option: True}}
    before = bits(trainer), repr(trainer.optimizer)
    with pytest.raises(CheckpointError, match=r"the settings of the optimiser are damaged: they need the state .*, got"):
        trainer.load_state(state)
    assert (bits(trainer), repr(trainer.optimizer)) == before
