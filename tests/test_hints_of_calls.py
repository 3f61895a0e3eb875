"""What error messages about calls say is executed here: the code in the message, completed as a reader would, works.

Data is in test_hints_of_data.py, losses and callbacks of one's own are in training/test_own_objects.py, folders in datasets/test_folder.py.
"""

import re
from functools import partial

import numpy as np
import pytest

import nbnet as nb
from nbnet import errors, hints

F = nb.functional
X, Y = np.arange(24, dtype=np.float32).reshape(12, 2), np.arange(12) % 3
IMAGE = np.ones((2, 4, 4, 3), np.float32)


def new(*layers):
    return nb.Sequential(layers or [nb.Dense(3)])


def built(*layers, shape=(2,), **options):
    model = new(*layers)
    model.build(shape, backend="serial", **options)
    return model


def names(tmp_path):
    model = built()
    trainer = nb.Trainer(model, optimizer="adam")
    known = {
        "nb": nb,
        "np": np,
        "F": F,
        "new": new,
        "built": built,
        "model": model,
        "trainer": trainer,
        "x": X,
        "y": Y,
        "name": "0.dense.bias",
    }
    more = {
        "input_shape": (2,),
        "inputs": 2,
        "partial": partial,
        "lr": 0.1,
        "path": tmp_path / "file",
        "image": IMAGE,
        "run": partial(nb.Trainer.fit, progress=False),
    }
    return (
        known
        | more
        | {"rate": 0.5, "build": partial(nb.Sequential.build, new(), backend="serial"), "fit": partial(trainer.fit, progress=False)}
    )


def follow(wrong, pattern, right, tmp_path):
    """The message of the wrong code; what the pattern finds in it completes the right code, which must run."""
    known = names(tmp_path)
    with pytest.raises(nb.NbnetError) as caught:
        exec(wrong, known)
    message = str(caught.value)
    assert "\n" not in message
    found = re.search(pattern, message)
    assert found, message
    exec(right.format(*(code.replace("=...", "=loss") for code in found.groups(""))), known)
    return message


# wrong code, what the message says, right code with what it says
KEYWORDS = [
    ("nb.LayerNorm(activation='relu')", r"write the activation as the next layer, such as (nb\.ReLU\(\))$", "built(nb.LayerNorm(), {})"),
    ("nb.BatchNorm(affine=False)", r"write (center=), (scale=)$", "nb.BatchNorm({}False, {}False)"),
    ("nb.RMSProp(0.1, alpha=0.9)", r"write (rho=) \(RMSProp\) or", "nb.RMSProp(0.1, {}0.9)"),
    ("nb.LeakyReLU(alpha=0.1)", r"or (slope=) \(LeakyReLU\)$", "nb.LeakyReLU({}0.1)"),
    ("nb.Adam(0.1, beta_1=0.9)", r"write (beta1=)$", "nb.Adam(0.1, {}0.9)"),
    ("nb.Adam(0.1, beta_2=0.9)", r"write (beta2=)$", "nb.Adam(0.1, {}0.9)"),
    ("nb.Adam(0.1, betas=(0.9, 0.99))", r"write (beta1=), (beta2=)$", "nb.Adam(0.1, {}0.9, {}0.99)"),
    ("nb.Dense(3, bias=False)", r"write (use_bias=)$", "nb.Dense(3, {}False)"),
    (
        "nb.Dense(3, bias_regularizer=1)",
        r"set (model.params\[name\].regularizer) after build$",
        "{} = nb.regularizers.l2(0.1); fit((x, y), 1)",
    ),
    (
        "nb.Dense(3, kernel_regularizer=1)",
        r"set (model.params\[name\].regularizer) after build$",
        "{} = nb.regularizers.l2(0.1); fit((x, y), 1)",
    ),
    (
        "fit((x, y), 1, class_weight={0: 2})",
        r"write Trainer\((loss=nb.losses.SoftmaxCrossEntropy\(class_weight=\[1, 2), ...\]\)\)$",
        "nb.Trainer(model, optimizer='adam', {}, 1]))",
    ),
    (
        "nb.Trainer(model, optimizer='adam', sample_weight=x)",
        r"write (trainer.fit\(\(x, y\), epochs=10, sample_weight=)weights\)$",
        "{}np.ones(len(x)))",
    ),
    ("nb.Adam(0.1, clipnorm=1.0)", r"write Trainer\((clip_norm=)\)$", "nb.Trainer(model, optimizer='adam', {}1.0)"),
    ("new().build((2,), device='cuda')", r'write (model.build\(input_shape, backend=)"cuda"\) or another', "model = new(); {}'serial')"),
    ("nb.Dropout(drop_prob=0.5)", r"write (rate=)$", "nb.Dropout({}0.5)"),
    ("nb.Dropout(p=0.5)", r"write (rate=)$", "nb.Dropout({}0.5)"),
    ("nb.BatchNorm(epsilon=1e-3)", r"write (eps=)$", "nb.BatchNorm({}1e-3)"),
    ("nb.Conv2D(3, 3, in_channels=1)", r"leave it out: (build\(input_shape\)) finds it$", "{}"),
    ("nb.Dense(3, in_features=2)", r"leave it out: (build\(input_shape\)) finds it$", "{}"),
    ("nb.BatchNorm(num_features=2)", r"leave it out: (build\(input_shape\)) finds it$", "{}"),
    ("fit((x, y), 1, initial_epoch=0)", r"(leave it out): a restored trainer goes on where it was$", "fit((x, y), 1)  # {}"),
    ("nb.Dense(3, input_dim=2)", r"write (model.build\(\(inputs,\)\))$", "model = new(); {}"),
    ("nb.Dense(3, input_shape=(2,))", r"write (model.build\(input_shape\))$", "model = new(); {}"),
    ("nb.Conv2D(3, 3, kernel_initializer='he_normal')", r"write (weight_initializer=)$", "nb.Conv2D(3, 3, {}'he_normal')"),
    ("nb.Adam(learning_rate=0.1)", r"in the optimizer write (lr=)$", "nb.Adam({}0.1)"),
    ("nb.Trainer(model, lr=0.1)", r"write (optimizer=nb.Adam\(lr\))$", "nb.Trainer(model, {})"),
    (
        "fit((x, y), 1, metrics=['f1'])",
        r"write (Trainer\(metrics=)\[...\]\); loss and accuracy are",
        "nb.{}['f1'], model=model, optimizer='adam')",
    ),
    ("nb.LeakyReLU(negative_slope=0.1)", r"write (slope=)$", "nb.LeakyReLU({}0.1)"),
    (
        "nb.callbacks.EarlyStopping('loss', restore_best_weights=True)",
        r"write (restore_best=)$",
        "run(trainer, (x, y), 1, callbacks=[nb.callbacks.EarlyStopping('loss', {}True)])",
    ),
    ("nb.callbacks.ModelCheckpoint(filepath=path)", r"write (path=)$", "nb.callbacks.ModelCheckpoint({}path)"),
    ("nb.Trainer(model, optim='adam')", r"write (optimizer=)$", "nb.Trainer(model, {}'adam')"),
    ("nb.Conv2D(out_channels=3, kernel_size=3)", r"write (filters=)$", "nb.Conv2D({}3, kernel_size=3)"),
    ("nb.Dense(out_features=3)", r"write (units=)$", "nb.Dense({}3)"),
    ("nb.MaxPool2D(pool_size=2)", r"write (size=)$", "nb.MaxPool2D({}2)"),
    (
        "fit((x, y), 1, shuffle=True)",
        r"leave it out: batches are shuffled by Trainer\((seed=)\)$",
        "nb.Trainer(model, optimizer='adam', {}3)",
    ),
    ("fit((x, y), 1, steps_per_epoch=2)", r"(leave it out): an epoch is all rows$", "fit((x, y), 1)  # {}"),
    ("nb.Conv2D(3, 3, strides=2)", r"write (stride=)$", "nb.Conv2D(3, 3, {}2)"),
    ("fit((x, y), 1, validation_data=(x, y))", r"write (validation=\(x, y\))$", "fit((x, y), 1, {})"),
    ("trainer.fit((x, y), 1, verbose=0)", r"write (progress=True) or (progress=False)$", "trainer.fit((x, y), 1, {1})"),
    ("model.predict(x, verbose=0)", r"expected x, (batch_size)$", "model.predict(x, {}=3)"),
]

MOVE = "model.{1}(path); model = new(); {0}'numpy'); model.{2}(path)"
METHODS = [
    ("model.add(nb.ReLU())", r"give all layers to (nb.Sequential\(\[)\.\.\.(\]\))$", "{}nb.Dense(3), nb.ReLU(){}"),
    (
        "model.compile(loss='mse')",
        r"write (trainer = .*), then (trainer.fit.*)$",
        "loss = 'mean_squared_error'; y = x[:, [0, 0, 0]]; {}; {}",
    ),
    ("model.fit(x, y)", r"write (trainer = .*), then (trainer.fit.*)$", "loss = 'softmax_cross_entropy'; {}; {}"),
    ("model.evaluate(x, y)", r"write (trainer = .*), then (trainer.evaluate.*)$", "loss = 'softmax_cross_entropy'; {}; {}"),
    ("model.cuda()", r'write (model.build\(input_shape, backend=)"cuda"\) for a new model;.* (save_weights) and (load_weights)$', MOVE),
    (
        "model.to('cuda')",
        r"write (model.build\(input_shape, backend=)\.\.\., dtype=...\) for a new model;.* (save_weights) and (load_weights)$",
        MOVE,
    ),
    (
        "model.eval()",
        r"nothing is needed: (forward\(x\)) and (predict\(x\)) .*, (forward\(x, train=True\)) ",
        "model.{}; model.{}; model.{}",
    ),
    ("model.train()", r"nothing is needed: (forward\(x, train=True\)) trains$", "model.{}"),
    (
        "model.load_state_dict({})",
        r"write (model.load_weights\(path\)), nb.convert.from_torch\(state_dict, model\), or assign to the arrays of (model.state\(\))$",
        "model.save_weights(path); {}; {}[name][:] = 1",
    ),
    ("model.parameters()", r"write (model.params), a dict$", "assert {}[name].value.shape == (3,)"),
    ("model.requires_grad_(False)", r"write (nb.freeze\(model\)), or nb.freeze\(model, 'conv\*'\) for a part$", "{}"),
    ("model.save(path)", r"write (model.save_weights\(path\)), or (trainer.save\(path\)) for the whole run$", "{}; {}"),
    ("model.state_dict()", r"write (model.state\(\))$", "assert len({}) == 2"),
]


@pytest.mark.parametrize(("wrong", "pattern", "right"), KEYWORDS, ids=[wrong for wrong, *_ in KEYWORDS])
def test_keywords_of_other_libraries(wrong, pattern, right, tmp_path):
    follow(wrong, pattern, right, tmp_path)


@pytest.mark.parametrize(("wrong", "pattern", "right"), METHODS, ids=[wrong for wrong, *_ in METHODS])
def test_methods_of_other_libraries(wrong, pattern, right, tmp_path):
    follow(wrong, pattern, right, tmp_path)


def test_every_hint_of_the_tables_is_followed():
    tried = " ".join(wrong for wrong, *_ in KEYWORDS)
    assert [name for name in hints.ARGUMENTS if not re.search(rf"\b{name}=", tried)] == []
    tried = " ".join(wrong for wrong, *_ in METHODS)
    assert [name for name in hints.METHODS if f".{name}(" not in tried] == []


@pytest.mark.parametrize("name", errors.OTHER_NAMES)
def test_names_of_other_libraries(name):
    """One of the places where names are given knows it, and takes what it suggests."""
    for get in (nb.losses.get, nb.initializers.get, nb.get_backend):
        with pytest.raises(nb.NbnetError) as caught:
            get(name)
        suggested = re.search(r"did you mean '(\w+)'\?", str(caught.value))
        if suggested and suggested[1] == errors.OTHER_NAMES[name]:
            assert suggested[1] == "cuda" or get(suggested[1])
            return
    pytest.fail("no place suggests it")


PAIRS = [
    ("trainer.fit(x, y, epochs=1)", r"write (fit\(\(x, y\), epochs=10\))$", "{}"),
    ("trainer.fit(x, y, 1)", r"write (fit\(\(x, y\), epochs=10\))$", "{}"),
    ("trainer.fit((x, y))", r"write (fit\(\(x, y\), epochs=10\))$", "{}"),
    ("trainer.fit(3, 1)", r"write (fit\(\(x, y\), epochs=10\))$", "{}"),
    ("trainer.evaluate(x)", r"write (evaluate\(x, y\))$", "trainer.{}"),
    ("model.predict()", r"write (predict\(x\))$", "model.{}"),
    ("new().build()", r"write (build\(\(28, 28, 1\)\))$", "model = new(nb.Flatten(), nb.Dense(3)); model.{}"),
    ("fit((x, y, y, y), 1)", r"write \(x, y, (sample_weight)\)$", "fit((x, y), 1, {}=np.ones(len(x)))"),
    (
        "data = (x, y), (x, y), ['a']; fit(data, 1)",
        r"write (.* = data), then (fit\(.*epochs=10\))$",
        "data = (x, y), (x, y), ['a']; {}; {}",
    ),
    (
        "fit(iter([(x, y)]), 1)",
        r"give (steps_per_epoch=), or an object .*, such as a (list)$",
        "fit(iter([(x, y)]), 1, {}1); fit({}([(x, y)]), 2)",
    ),
    ("fit((x, y), 1, validation=iter([(x, y)]))", r"such as a (list)$", "fit((x, y), 1, validation={}([(x, y)]))"),
    ("fit([(x, y)], 1, sample_weight=y)", r"expected batches (\(x, y, sample_weight\))$", "sample_weight = y; fit([{}], 1)"),
    ("fit([(x, y)], 1, validation_split=0.1)", r"write (validation=) with other batches$", "fit([(x, y)], 1, {}[(x, y)])"),
    ("fit((x, y), 1, validation=x)", r"write (validation=\(x, y\))$", "fit((x, y), 1, {})"),
    ("fit((x, y), 1, validation=0.2)", r"write (validation_split=0.2)$", "fit((x, y), 1, {})"),
]

BUILDING = [
    ("new().predict(x)", r"call (model.build\(input_shape\)) first$", "model = new(); {}; model.predict(x)"),
    ("new().forward(x)", r"call (build\(input_shape\)) first$", "model = new(); model.{}; model.forward(x)"),
    ("new().summary()", r"call (model.build\(input_shape\)) first$", "model = new(); {}; model.summary()"),
    ("nb.Trainer(new())", r"call (model.build\(input_shape\)) before (Trainer\(model)\)$", "model = new(); {}; nb.{}, optimizer='adam')"),
    (
        "nb.fold_batch_norm(new())",
        r"call (model.build\(input_shape\)) first$",
        "model = new(nb.Dense(3), nb.BatchNorm()); {}; nb.fold_batch_norm(model)",
    ),
    ("new(nb.Dense(3), 'relu')", r"expected layers such as (nb.Dense\(10\))$", "new(nb.Dense(3), {})"),
    ("nb.Sequential([]).build((2,))", r"expected at least one, such as (nb.Dense\(10\))$", "built({})"),
    ("layer = nb.Dense(3); built(layer, layer)", r"or a (new Dense) here$", "built(nb.Dense(3), nb.Dense(3))  # {}"),
    (
        "built(nb.Dense(3), shape=(4, 4, 1))",
        r"put (Flatten\(\)) or (GlobalAvgPool2D\(\)) before it$",
        "built(nb.{0}, nb.Dense(3), shape=(4, 4, 1)); built(nb.{1}, nb.Dense(3), shape=(4, 4, 1))",
    ),
    ("built(nb.Softmax(), shape=(4, 4, 1))", r"put (Flatten\(\)) before it$", "built(nb.{}, nb.Softmax(), shape=(4, 4, 1))"),
    (
        "built(nb.Residual([nb.Conv2D(8, 3, 2)]), shape=(4, 4, 1))",
        r"give the shortcut a (Conv2D\(filters, 1, stride\)) that fits$",
        "filters, stride = 8, 2; built(nb.Residual([nb.Conv2D(8, 3, 2)], nb.{}), shape=(4, 4, 1))",
    ),
    ("new().build(28)", r"expected .*, such as (\(28, 28, 1\))$", "built(nb.Flatten(), nb.Dense(3), shape={})"),
    (
        "model.build((5,), backend='serial')",
        r"use a new layer, or (rebuild=True), which drops",
        "model.build((5,), backend='serial', {}); built(shape=(5,))",
    ),
    ("built(nb.Conv2D(2, 3, padding='valid'), shape=(2, 2, 1))", r"use (padding='same')$", "built(nb.Conv2D(2, 3, {}), shape=(2, 2, 1))"),
    (
        "nb.BatchNorm(momentum=0.1)",
        r"use decay=.* \(PyTorch's 0.1 is (decay=0.9), Keras's 0.99 is (decay=0.99)\)$",
        "nb.BatchNorm({}); nb.BatchNorm({})",
    ),
    ("nb.BatchNorm(decay=None, zero_debias=True)", r"(leave them out)$", "nb.BatchNorm(decay=None)  # {}"),
    (
        "built(nb.Dense(3, bias_initializer='he_normal'))",
        r"use ('zeros') or ('ones')$",
        "built(nb.Dense(3, bias_initializer={})); built(nb.Dense(3, bias_initializer={}))",
    ),
    (
        "built(nb.GroupNorm(2), shape=(3,))",
        r"expected one of ([\d, ]+)$",
        "[built(nb.GroupNorm(groups), shape=(4, 3)) for groups in ({},)]",
    ),
]

TRAINING = [
    (
        "nb.losses.get(nb.losses.MeanSquaredError)",
        r"use (loss=MeanSquaredError\()\)$",
        "from nbnet.losses import MeanSquaredError; nb.losses.get(**dict({}reduction='sum')))",
    ),
    (
        "nb.Trainer(model)",
        r"expected an optimiser such as (nb.Adam\(1e-3\)), or a name such as ('adam')$",
        "nb.Trainer(model, optimizer={}); nb.Trainer(model, optimizer={})",
    ),
    (
        "fit((x, y), 1); nb.Trainer(built(nb.Dense(4)), optimizer=trainer.optimizer)",
        r"make a new one for this model, (nb.Adam\(.*\))$",
        "nb.Trainer(model, optimizer={})",
    ),
    (
        "model.build((2,), backend='serial', rebuild=True); fit((x, y), 1)",
        r"(make a new Trainer, with a new optimiser)$",
        "nb.Trainer(model, optimizer='adam').fit((x, y), 1, progress=False)  # {}",
    ),
    (
        "fit((x, y), 1, callbacks=[nb.callbacks.EarlyStopping()])",
        r"pass (validation=) to fit$",
        "nb.Trainer(model, optimizer='adam').fit((x, y), 1, {}(x, y), callbacks=[nb.callbacks.EarlyStopping()])",
    ),
    ("model.save_weights(path); trainer.restore(path)", r"for weights use (load_weights)$", "model.{}(path)"),
    (
        "nb.gradcheck(model.layers[0], x)",
        r"needs a layer built with (dtype='float64'), .*: use a new layer",
        "nb.gradcheck(built({}).layers[0], x.astype(float))",
    ),
    ("nb.StandardScaler().transform(x)", r"call (fit\(x\)) first$", "nb.StandardScaler().{}.transform(x)"),
    ("trainer.stop('now'); fit((x, y), 1, 0)", r"expected a whole number, at least (1)$", "fit((x, y), 1, {})"),
    (
        "F.batch_norm_forward(x[:1], None, None, backend='serial')",
        r"train on a larger batch, or evaluate with (mean=) and (var=)$",
        "norm = partial(F.batch_norm_forward, backend='serial'); norm(x[:3], None, None); norm(x[:1], None, None, {}x[0], {}x[1])",
    ),
    (
        "F.batch_norm_forward(x, None, None, mean=x[0], backend='serial')",
        r"expected (mean and var together)",
        "F.batch_norm_forward(x, None, None, mean=x[0], var=x[1], backend='serial')  # {}",
    ),
    (
        "F.conv2d_forward(image[:, :1, :1], image[0, :3, :3, :, None], padding='valid', backend='serial')",
        r"use (padding='same')$",
        "F.conv2d_forward(image[:, :1, :1], image[0, :3, :3, :, None], {}, backend='serial')",
    ),
    (
        "F.dense_backward(x, model.forward(x)[1])",
        r"expected what forward returned with (train=True)",
        "_, saved = model.forward(x, {}); model.backward(x[:, [0, 0, 0]], saved)",
    ),
]

RUNNING = [
    (
        "built(nb.BatchNorm(virtual_batch_size=5, groups='strided')).forward(x, train=True)",
        r"use a multiple of (5), or (groups='contiguous')$",
        "built(nb.BatchNorm(virtual_batch_size=5, groups='strided')).forward(x[:2 * {}], train=True); "
        "built(nb.BatchNorm(virtual_batch_size=5, {})).forward(x, train=True)",
    ),
    (
        "norm = built(nb.BatchNorm(update='deferred')); [norm.forward(x, train=True) for _ in 'two']",
        r"call (apply_updates\(\)) after each training step$",
        "norm = built(nb.BatchNorm(update='deferred')); norm.forward(x, train=True); norm.{}; norm.forward(x, train=True)",
    ),
    (
        "model.params[name].value = np.zeros(6, 'float32')[::2]; fit((x, y), 1)",
        r"use (np.ascontiguousarray\()value\)$",
        "model.params[name].value = {}np.zeros(6, 'float32')[::2]); fit((x, y), 1)",
    ),
    (
        "value = np.zeros(3, 'float32'); value.flags.writeable = False; model.params[name].value = value; fit((x, y), 1)",
        r"is read-only: use (np.array\(value\))$",
        "value = np.zeros(3, 'float32'); value.flags.writeable = False; model.params[name].value = {}; fit((x, y), 1)",
    ),
    (
        "stop = nb.callbacks.Callback(); stop.on_batch_end = lambda t: t.stop('now'); "
        "fit((x, y), 1, 4, callbacks=[stop]); fit((x, y), 1, 3)",
        r"batches of (4): it cannot continue .*; use the same data and (batch_size)$",
        "fit((x, y), 1, {1}={0})",
    ),
    (
        "trainer.save(path); nb.Trainer(model, optimizer='sgd').restore(path)",
        r"was trained with (Adam), .*: use the same optimiser$",
        "nb.Trainer(model, optimizer=nb.{}()).restore(path)",
    ),
    (
        "trainer.save(path); nb.Trainer(model, optimizer='adam', average=nb.ExponentialMovingAverage(0.9)).restore(path)",
        r"make the Trainer with the same (average=) as before$",
        "nb.Trainer(model, optimizer='adam', {}None).restore(path)",
    ),
    (
        "average = nb.ExponentialMovingAverage(0.9); average.apply({'w': x}); nb.Trainer(model, optimizer='adam', average=average)",
        r"(make a new one)$",
        "nb.Trainer(model, optimizer='adam', average=nb.ExponentialMovingAverage(0.9))  # {}",
    ),
    ("nb.freeze(model, ['dense'])", r"write (nb.freeze\(model, \*patterns\))$", "patterns = ['dense']; {}"),
    ("nb.freeze(nb.Dense(3))", r"call (model.build\(input_shape\)) first$", "model = new(); {}; nb.freeze(model)"),
    (
        "fit((x, y), 1); fit((x, y), 2, callbacks=[nb.callbacks.EarlyStopping('loss', 9, d, restore_best=True) for d in (0, 1e9)])",
        r"(use one such callback), with the same options from the start$",
        "nb.Trainer(model, optimizer='adam').fit((x, y), 2, callbacks=[nb.callbacks.EarlyStopping('loss', restore_best=True)])  # {}",
    ),
    ("trainer.optimizer.lr = float('nan'); fit((x, y), 1)", r"set (optimizer.lr)$", "trainer.{} = 0.1; fit((x, y), 1)"),
    (
        "model(x)",
        r"write (model.predict\(x\)), or (y, saved = model.forward\(x, train=True\))$",
        "{}; {}; model.backward(y, saved)",
    ),
    (
        "built(nb.Dropout(0.5, spatial=True, noise_shape=(None, 1)))",
        r"spatial=True is a (noise_shape)",
        "built(nb.Dropout(0.5, {}=(None, 1)))",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "pattern", "right"),
    [*PAIRS, *BUILDING, *TRAINING, *RUNNING],
    ids=[wrong for wrong, *_ in [*PAIRS, *BUILDING, *TRAINING, *RUNNING]],
)
def test_calls(wrong, pattern, right, tmp_path):
    follow(wrong, pattern, right, tmp_path)
