"""The Trainer: a model, what it is trained by, and how far it is."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import losses, optimizers, schedules
from nbnet.code_repr import CodeRepr
from nbnet.distributed import Ranks
from nbnet.distributed.slicing import SLICES
from nbnet.errors import ArgumentError, BuildError
from nbnet.functional import checks
from nbnet.hints import explained, warn
from nbnet.layers import Sequential
from nbnet.metrics import Metric, Report, get_all
from nbnet.optimizers import Optimizer
from nbnet.progress import is_shown
from nbnet.runtime.arrays import first, take
from nbnet.runtime.commit import commit
from nbnet.runtime.replay import Replay
from nbnet.runtime.watched import Watched
from nbnet.training import checkpoint, evaluation, resume
from nbnet.training.augmented import check_augment, for_evaluation, own_rows
from nbnet.training.averages import Average
from nbnet.training.callbacks.base import Callback, Hook, hooks_of
from nbnet.training.checkpoint import Best
from nbnet.training.epoch import Batch, Position, check_data, check_weights
from nbnet.training.graph import Graphs
from nbnet.training.graph import check as check_graph
from nbnet.training.history import History
from nbnet.training.loop import close_epoch, follow, means, run_epoch, train_step
from nbnet.training.notes import before_fit, rate, softmax_twice
from nbnet.training.sliced import Sliced, facts_of, facts_of_data
from nbnet.training.sources import EVALUATED, Source, source_of, split


class Trainer(CodeRepr):
    """Trains a model: batches, loss, gradients, optimiser, schedule, checkpoints.

    Args:
        model: a built Sequential.
        loss: "softmax_cross_entropy", "mean_squared_error" or another name in nb.losses.LOSSES, a loss object with options, such as
            nb.losses.Huber(0.5), or a function (see nbnet.losses.get). A model with several outputs takes a tuple with one for each:
            their sum is minimised (see nbnet.losses.PerOutput).
        optimizer: nb.SGD, RMSProp, Adam or AdamW, or the name of one with its default options, such as "adam".
        schedule: "constant", "cosine", "step", "one_cycle", "warm_up", or a function of progress (0 to 1) whose value multiplies
            the optimiser's lr. It is used by `fit`, which knows the number of epochs; progress follows from the epoch and the batch.
        clip_norm: gradients are scaled down so that their global L2 norm is at most this   (Pascanu, Mikolov and Bengio 2013).
        accumulate: each batch runs in this many parts, whose gradients are added: the same step in less memory, except that
            batch normalisation uses the statistics of each part.
        seed: of the shuffling.
        metrics: names in nb.metrics.METRICS, such as ["accuracy", "f1"], metric objects, and functions of (y, prediction), which get all
            rows of an epoch. They are in the history, the progress bar and the pictures, of training batches and of the validation;
            "accuracy" replaces that of the loss. Sample weights weigh the rows.
        average: an nb.ExponentialMovingAverage of the parameters, and of buffers that hold floats, an nb.StochasticWeightAverage or an
            nb.Lookahead, which follows each step. Checkpoints hold it; `with trainer.average.swapped(model):` uses it.
        augment: transforms of nbnet.augment and their names, such as ["flip", "crop"], for the images that `fit` trains on; evaluation
            applies Normalize alone, and so does train_batch, which does not know the rows. MixUp and CutMix need softmax_cross_entropy.
        comm: MPI.COMM_WORLD of mpi4py, to train on all of its ranks together (see nbnet.distributed and docs/distributed.md). Every rank
            makes the same trainer and calls the same methods with the same data. The results have the same bits on any number of ranks.
        slices: a power of two: each batch is cut into so many parts, whose gradients are computed apart and added by a tree; None: 8
            with comm, else batches are not cut. The same slices give the same bits on any number of ranks, also without comm.
        wire: with comm, "float16" or "bfloat16" to send gradients of float32 so between ranks: half the bytes, and other bits, which then
            depend on the number of ranks.
        replay: whether the kernel calls of a training pass are recorded and repeated, which saves the layers' Python; the results
            have the same bits either way (nbnet.runtime.replay). False runs every layer in every step, for a debugger.
        graph: on backend "cuda", whether each step becomes one CUDA graph, by cuda.core (nbnet.training.graph); the results have the same
            bits either way. The capture has never run on a GPU so far.
    Attributes:
        lr_factor: multiplies the learning rate; callbacks.ReduceLROnPlateau sets it. Checkpoints hold it.
        step: optimiser steps so far. epoch: complete epochs so far. schedule_epochs: how many the schedule spanned in the last
            step of `fit`.
        history: one list per metric, with one value per epoch. stop_reason: what ended `fit` early, or None.
        best: None, or the epoch and the arrays that callbacks.EarlyStopping(restore_best=True) keeps. Checkpoints hold them.
    Raises:
        BuildError: the model is not built. ArgumentError: an option is wrong.
    Warns:
        UserWarning: the model ends with Softmax, and the loss takes a softmax itself.
    """

    def __init__(
        self,
        model: Sequential,
        loss: Any = "softmax_cross_entropy",
        optimizer: Optimizer | str | None = None,
        *,
        schedule: Any = None,
        clip_norm: float | None = None,
        accumulate: int = 1,
        seed: int = 0,
        average: Average | None = None,
        replay: bool = True,
        metrics: Iterable[Any] = (),
        augment: Iterable[Any] = (),
        comm: Any = None,
        slices: int | None = None,
        wire: str | None = None,
        graph: bool = False,
    ) -> None:
        self.ranks = Ranks(comm)
        with self.ranks.together():
            if model.input_shape is None:
                raise BuildError("the model is not built yet: call model.build(input_shape) before Trainer(model)")
            if clip_norm is not None:
                clip_norm = checks.number(clip_norm, "clip_norm", "a finite number above 0, or None", lambda norm: 0 < norm < math.inf)
            self.model = model
            self.loss = losses.get(loss)
            losses.check_outputs(self.loss, model.output_shape)
            self.metrics = get_all(metrics, self.loss, model.output_shape)
            self.augment = check_augment(augment, model, self.loss)
            self.optimizer = optimizers.get(optimizer)
            self.optimizer.check_owner(model.params)
            self.schedule = schedules.get(schedule)
            self.clip_norm = clip_norm
            self.accumulate = checks.whole(accumulate, "accumulate")
            self.seed = checks.whole(seed, "seed", 0, checkpoint.WORD)
            if average is not None and average.used:
                raise ArgumentError(f"average={average!r} has averages of another run: make a new one")
            self.average = average
            self.lr_factor = 1.0
            self._averaged = 0  # the last step that the average has followed
            self.step = 0
            self.epoch = 0
            self.schedule_epochs = 0
            self.history = History()
            self.position = Position()
            self.stop_reason: str | None = None
            self.best: Best | None = None
            self._measured: tuple[int, tuple[Metric, ...]] = (0, ())  # rows of this epoch that the metrics have seen
            if (note := softmax_twice(model, self.loss)) is not None and self.ranks.rank == 0:
                warn(note)
            self._trained = set(model.params.values())
            self._checked = (-1, 0)  # Watched.changes at the last check of the model, and which it was
            self._passes = Replay(bool(replay))
            if wire is not None and model.dtype != np.float32:
                raise ArgumentError(f"wire={wire!r} is for models in float32, got {model.dtype}: leave it out")
            self.wire = wire
            self.sliced: Sliced | None = None
            self.slices = SLICES if slices is None and comm is not None else slices
            if wire is not None and comm is None:
                raise ArgumentError(f"wire={wire!r} without comm, expected comm=MPI.COMM_WORLD with it: one process sends nothing")
            self.graph = bool(graph)
            self.graphs: Graphs | None = None
            if self.graph:
                check_graph(self)
                self.graphs = Graphs()
            if self.ranks.size > 1:
                self.ranks.same(facts_of(self), "configuration")
        self._compiled_for: Sequential | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_compiled_for": None, "_checked": (-1, 0)}  # of this process

    def __copy__(self) -> Trainer:
        """Like copy.deepcopy: two trainers of one run would spoil it for each other."""
        return copy.deepcopy(self)

    @property
    def replay(self) -> bool:
        """Whether passes are recorded and replayed. It can be set at any time."""
        return self._passes.enabled

    @replay.setter
    def replay(self, value: bool) -> None:
        for passes in self._all_passes():
            passes.enabled = bool(value)
            passes.clear()

    @property
    def slices(self) -> int | None:
        """How many slices each batch is cut into, or None."""
        return None if self.sliced is None else self.sliced.slices

    @slices.setter
    def slices(self, value: int | None) -> None:
        if value is None and self.ranks.size > 1:
            raise ArgumentError(f"slices=None on {self.ranks.size} ranks, expected a power of two, such as {SLICES}")
        self.sliced = None if value is None else Sliced(value, self.ranks, self.wire, self.replay)

    def _all_passes(self) -> list[Replay]:
        return [self._passes] if self.sliced is None else [self._passes, self.sliced.passes]

    def clear_passes(self) -> None:
        """Drop what is recorded of passes."""
        for passes in self._all_passes():
            passes.clear()
        if self.graphs is not None:
            self.graphs.passes.clear()

    def __repr__(self) -> str:
        """Code that makes such a trainer, with a model that is not trained yet."""
        model = self.model
        options = f"backend={model.backend.name!r}, dtype='{model.dtype}', seed={model.seed}{'' if model.fused else ', fuse=False'}"
        trainer = super().__repr__().replace(repr(model), "model", 1)
        return f"model = {model!r}\nmodel.build({model.input_shape}, {options})\ntrainer = {trainer}"

    # ------------------------------------------------------------------------------------------------ training

    @explained("fit((x, y), epochs=10)")
    def fit(
        self,
        data: Any,
        epochs: int,
        batch_size: int = 64,
        validation: Any = None,
        callbacks: Iterable[Callback] = (),
        progress: bool | None = None,
        sample_weight: Any = None,
        validation_split: float | None = None,
        steps_per_epoch: int | None = None,
    ) -> dict[str, list[float]]:
        """Train until `epochs` epochs are complete, counted from the start of the run: after restoring epoch 3, epochs=6 runs 3 more.

        Args:
            data: (x, y) or (x, y, sample_weight): x (N, ...) uint8 (scaled to [0, 1] batch by batch), float32 or float64; y (N, ...) as
                the loss takes it. For several inputs x is a tuple of arrays, with a loss for each output y too. x may be a memory map, or
                an array that is not in memory, such as one of h5py, whose rows are read, and checked, batch by batch. Or batches of your
                own, such as a list of tuples (x, y) or a loader (see nbnet.training.sources.Batches).
            batch_size: a last batch of one row joins the one before it, since one row has no variance to normalise by. Batches of your
                own have their own.
            validation: (x, y) to evaluate after each epoch, or (x, y, sample_weight), or batches of your own.
            callbacks: objects with some of the methods of nb.callbacks.Callback; after `restore` in one, training continues there.
            progress: whether to show a progress bar; None shows one on a terminal and in a notebook.
            sample_weight: (N,) numbers of at least 0, which multiply the losses of the rows. The sum is still divided by the number of
                rows (see nbnet.losses.Loss).
            validation_split: instead of validation, the share of the rows, between 0 and 1, that is evaluated and not trained on; of
                each class where y has one for each row. It depends on y and the trainer's seed alone; x in memory is copied.
            steps_per_epoch: for batches of your own: how many are an epoch; None for len() of what gives them.
        Returns:
            history: loss, accuracy (classification), val_loss, val_accuracy (with validation), lr, seconds: one value per epoch.
        Raises:
            DataError, ShapeError, DTypeError, ArgumentError: the data or an option does not fit; nothing has changed.
            NonFiniteError: NaN or infinity in the data or the loss; parameters and buffers are as they were before that step.
        Any exception: a step has happened completely or not at all, so that `save` works, and another call of `fit` continues the run.
        One in a callback comes between two steps; no other callback is called after it, nor is on_train_end. Only what a layer, loss or
        optimiser of your own keeps outside of parameters, buffers and state may have gone on; on "cuda" also what is being launched.
        An optimiser that overrides `step` must undo a failed step itself: what it wrote before its exception stays.
        Warns:
            UserWarning: there is nothing left to train, or the learning rate jumps since the schedule now spans other epochs.
        """
        with self.ranks.together():
            self._check_model()
            source = source_of(self, data, "data", checks.whole(batch_size, "batch_size"), sample_weight, steps_per_epoch)
            epochs = checks.whole(epochs, "epochs")
            held_out = None if validation is None else source_of(self, validation, "validation", EVALUATED)
            if validation_split is not None:
                source, held_out = split(source, held_out, validation_split, self.seed)
            self.position.check_continues(source.rows, source.batch_size)
            hooks = hooks_of(callbacks, self.ranks.rank)
            if self.ranks.size > 1:
                self.ranks.same(facts_of_data(self, source, held_out, epochs), "data set")
            self.stop_reason = None
            if (note := before_fit(self, epochs, source.count)) is not None and self.ranks.rank == 0:
                warn(note)
            progress = progress if self.ranks.rank == 0 else False
            if self.epoch and self.epoch < epochs and is_shown(progress):
                print(f"continuing after epoch {self.epoch}: epochs={epochs} counts from the start of the run", file=sys.stderr)
            self._call(hooks["on_train_begin"])
            while self._goes_on(epochs):
                self._call(hooks["on_epoch_begin"])
                if self._goes_on(epochs) and run_epoch(self, source, epochs, hooks, progress):
                    close_epoch(self, held_out)
                    self._call(hooks["on_epoch_end"])
            self._call(hooks["on_train_end"])
            return self.history

    def _goes_on(self, epochs: int) -> bool:
        return self.epoch < epochs and not self._is_stopped()

    def _is_stopped(self) -> bool:
        """Whether `stop` was called, on any rank."""
        if self.ranks.size > 1 and self.ranks.any(self.stop_reason is not None):
            self.stop_reason = next(reason for reason in self.ranks.gather(self.stop_reason) if reason is not None)
        return self.stop_reason is not None

    def _call(self, hooks: Iterable[Hook]) -> None:
        for hook in hooks:
            hook(self)

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """One optimiser step on one batch, with the optimiser's lr.

        Args:
            x, y, sample_weight: as in `fit`.
        Returns:
            {"loss": ..., "accuracy": ...} (accuracy for classification), and the metrics.
        Raises:
            DataError, ShapeError, DTypeError, NonFiniteError: as `fit`.
        """
        with self.ranks.together():
            self._check_model()
            x, y = check_data((x, y), "batch", self.model, self.loss)
            weights = check_weights(sample_weight, len(first(x)), "batch", self.loss)
            rows = len(first(x))
            if self.sliced is not None:
                own = own_rows(self, np.arange(rows))
                x, y, weights = take(x, own), take(y, own), None if weights is None else weights[own]
            x = for_evaluation(self, take(x, slice(None)))  # which reads it, if it is not in memory
            return means(self.loss, *train_step(self, Batch(x, y, weights, rows), rate(self)))

    def stop(self, reason: str) -> None:
        """End `fit` after the current batch, or before the next one. For callbacks and signal handlers."""
        self.stop_reason = reason

    # ---------------------------------------------------------------------------------------------- evaluation

    @explained("evaluate(x, y)")
    def evaluate(self, x: Any, y: Any = None, batch_size: int = EVALUATED, sample_weight: Any = None) -> dict[str, float]:
        """Loss and accuracy with moving statistics.

        Args:
            x, y, sample_weight: as in `fit`. Or x alone: (x, y), (x, y, sample_weight), or
                batches of your own that can be iterated again.
        Returns:
            {"loss": ..., "accuracy": ...} (accuracy for classification), and the metrics.
        Raises:
            DataError, ShapeError, DTypeError, ArgumentError: the data or batch_size does not fit.
        """
        with self.ranks.together():
            self._check_model()
            source = source_of(self, x if y is None else (x, y), "evaluation data", checks.whole(batch_size, "batch_size"), sample_weight)
            return self._evaluate(source)

    def _evaluate(self, source: Source) -> dict[str, float]:
        """`evaluate` on data that is checked already."""
        self.clear_passes()  # training and evaluation need not hold memory at the same time
        return means(self.loss, *evaluation.evaluate(self, source.in_order(self.ranks)))

    def report(self, x: Any, y: Any = None, class_names: Sequence[str] | None = None, batch_size: int = EVALUATED) -> Report:
        """Precision, recall and F1 of each class, and the confusion matrix: `print(trainer.report(x, y))`.

        Args:
            x, y: as in `evaluate`, with one class for each row; sample weights are ignored.
            class_names: one for each class; None for their numbers.
        Raises:
            ArgumentError: the loss has no classes, or there is not one name for each. DataError, ShapeError, DTypeError: as `evaluate`.
        """
        with self.ranks.together():
            self._check_model()
            source = source_of(self, x if y is None else (x, y), "report data", checks.whole(batch_size, "batch_size"))
            return evaluation.report(self, source.in_order(self.ranks), class_names)

    # --------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> checkpoint.State:
        """The whole run: model, optimiser, average, best weights, step, position, history, seed, settings. Arrays are not copied."""
        self._check_model()
        follow(self)
        return resume.state(self)

    def load_state(self, state: checkpoint.State, source: str | Path = "the state") -> None:
        """Continue from a state of a trainer that was made like this one.

        The options of the optimiser, clip_norm, accumulate and what is frozen become those of the state.

        Args:
            state: what `state` returned; its arrays are copied.
            source: what errors call it, such as the path of a file.
        Raises:
            CheckpointError: the state is damaged, or belongs to another model or optimiser; nothing has changed.
        Warns:
            UserWarning: settings of this trainer differed from those of the state, or its loss or schedule still differs.
        """
        calls, note = resume.load(self, state, source)
        commit(calls)
        if note is not None and self.ranks.rank == 0:
            warn(note)

    def save(self, path: str | Path) -> None:
        """Write the whole run (see `state`) to a safetensors file, which is safe to load from anyone. (A pickle of a trainer runs code.)

        With comm, all ranks call it, and the first one writes.

        Raises:
            CheckpointError: it cannot be written; an older file there is untouched.
        """
        with self.ranks.together():
            state = self.state()
            self.ranks.first(lambda: checkpoint.write(state, path))

    def restore(self, path: str | Path) -> None:
        """Continue a saved run, bit for bit. First make the model, the optimiser and the trainer as they were made for it.

        Raises:
            CheckpointError: the file cannot be read or belongs to another model or optimiser; nothing has changed.
        """
        with self.ranks.together():
            self.load_state(checkpoint.read(path), path)

    def _check_model(self) -> None:
        """Check that the model has the parameters that this run trains.

        Raises:
            BuildError: it was built again, with rebuild=True or other layers.
        """
        now = Watched.changes, id(self.model)
        if now == self._checked:
            return
        self.model.refresh()
        if not self._trained.issuperset(self.model.params.values()):
            raise BuildError(
                "the model was built again, or replaced, since this Trainer was made: it has parameters that this run has not trained; "
                "make a new Trainer, with a new optimiser"
            )
        self._checked = now
