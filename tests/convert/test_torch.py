"""Modules of PyTorch beside models with the same layers: both ways, and what is refused. Runs where torch is installed."""

import numpy as np
import pytest
from tolerances import assert_close

import nbnet as nb
from convert.twins import built, everything
from nbnet.convert import slots
from nbnet.errors import ArgumentError, CheckpointError, ShapeError

torch = pytest.importorskip("torch", reason="torch is a yardstick, not a dependency")
nn = torch.nn


class Apply(nn.Module):
    """What joins the results of modules: apply(f, a, b)(x) = f(a(x), b(x)), or f(a(x0), b(x1)) of several inputs."""

    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *xs):
        xs = xs * len(self.parts) if len(xs) == 1 else xs
        return self.function([part(x) for part, x in zip(self.parts, xs)])


def side_by_side(parts):
    return torch.cat(parts, 1)


def conv(i, o, **options):
    return nn.Conv2d(i, o, 3, padding=1, **options)


# name: (module, layers, input shape)
TWINS = {
    "conv2d": (lambda: conv(4, 6), lambda: [nb.Conv2D(6, 3)], (5, 4, 4)),
    "conv2d options": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=2, dilation=(1, 2), groups=2, bias=False),
        lambda: [nb.Conv2D(6, (3, 2), stride=2, dilation=(1, 2), groups=2, use_bias=False, padding="valid")],
        (7, 8, 4),
    ),
    "depthwise": (lambda: conv(4, 12, groups=4), lambda: [nb.DepthwiseConv2D(3, multiplier=3)], (5, 4, 4)),
    "separable": (
        lambda: nn.Sequential(conv(4, 8, groups=4, bias=False), nn.Conv2d(8, 5, 1)),
        lambda: [nb.SeparableConv2D(5, 3, multiplier=2)],
        (5, 4, 4),
    ),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), lambda: [nb.Conv1D(6, 3, padding="valid", groups=2)], (9, 4)),
    "transpose 2d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, output_padding=1, groups=2),
        lambda: [nb.ConvTranspose2D(6, (3, 2), stride=2, padding=1, output_padding=1, groups=2)],
        (4, 5, 4),
    ),
    "transpose 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), lambda: [nb.ConvTranspose1D(6, 3, 2, padding="valid")], (5, 4)),
    "linear": (lambda: nn.Linear(5, 3, bias=False), lambda: [nb.Dense(3, use_bias=False)], (5,)),
    "batch norm": (
        lambda: nn.Sequential(nn.BatchNorm2d(4, eps=1e-3, momentum=0.3), nn.BatchNorm2d(4, momentum=None)),
        lambda: [nb.BatchNorm(decay=0.7, eps=1e-3), nb.BatchNorm(decay=None)],
        (3, 2, 4),
    ),
    "batch norm, nothing trained": (lambda: nn.BatchNorm1d(4, affine=False), lambda: [nb.BatchNorm(center=False, scale=False)], (6, 4)),
    "batch norm of deviations": (lambda: nn.BatchNorm1d(4), lambda: [nb.BatchNorm(track="deviation", zero_debias=True)], (4,)),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda: [nb.GroupNorm(2)], (3, 2, 4)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), lambda: [nb.InstanceNorm()], (3, 2, 4)),
    "layer norm of an image": (lambda: nn.LayerNorm((4, 3, 2)), lambda: [nb.LayerNorm(axes=(-3, -2, -1))], (3, 2, 4)),
    "rms norm": (lambda: nn.RMSNorm(6, eps=1e-5), lambda: [nb.RMSNorm()], (6,)),
    "rms norm of an image": (lambda: nn.RMSNorm((4, 3, 2), eps=1e-5), lambda: [nb.RMSNorm(axes=(-3, -2, -1))], (3, 2, 4)),
    "prelu": (lambda: nn.Sequential(nn.PReLU(), nn.PReLU(4)), lambda: [nb.PReLU(), nb.PReLU(per_channel=True)], (3, 2, 4)),
    "flatten, norms and a slope for each feature": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.LayerNorm(24), nn.RMSNorm(24, eps=1e-5), nn.PReLU(24), nn.Linear(24, 5)),
        lambda: [nb.Flatten(), nb.BatchNorm(), nb.LayerNorm(), nb.RMSNorm(), nb.PReLU(per_channel=True), nb.Dense(5)],
        (3, 2, 4),
    ),
    "flatten a sequence": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), lambda: [nb.Reshape((12,)), nb.Dense(5)], (3, 4)),
    "flatten at the end": (lambda: nn.Sequential(conv(4, 3), nn.Flatten()), lambda: [nb.Conv2D(3, 3), nb.Flatten()], (3, 2, 4)),
    "images of features": (
        lambda: nn.Sequential(nn.Linear(5, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Unflatten(1, (4, 3, 2)), conv(4, 2)),
        lambda: [nb.Dense(24), nb.BatchNorm(), nb.ReLU(), nb.Reshape((3, 2, 4)), nb.Conv2D(2, 3)],
        (5,),
    ),
    "residual": (
        lambda: Apply(sum, nn.Sequential(conv(4, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 6)), nn.Conv2d(4, 6, 1)),
        lambda: [nb.Residual([nb.Conv2D(6, 3), nb.BatchNorm(), nb.ReLU(), nb.Conv2D(6, 3)], nb.Conv2D(6, 1))],
        (5, 4, 4),
    ),
    "residual of flattened features": (
        lambda: nn.Sequential(nn.Flatten(), Apply(sum, nn.BatchNorm1d(24), nn.Identity()), nn.Linear(24, 3)),
        lambda: [nb.Flatten(), nb.Residual(nb.BatchNorm()), nb.Dense(3)],
        (3, 2, 4),
    ),
    "concat of flattened features": (
        lambda: nn.Sequential(
            Apply(side_by_side, nn.Flatten(), nn.Sequential(conv(4, 3), nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Linear(24, 2))),
            nn.Linear(44, 3),
        ),
        lambda: [
            nb.Concat([nb.Flatten(), [nb.Conv2D(3, 3), nb.Flatten()], [nb.Flatten(), nb.Dense(2)]]),
            nb.Dense(3),
        ],
        (3, 2, 4),
    ),
    "two inputs that are added": (
        lambda: Apply(lambda xs: nn.functional.relu(xs[0] + xs[1]), nn.Linear(4, 4), nn.Identity()),
        lambda: [nb.Add([nb.Dense(4), nb.Identity()]), nb.ReLU()],
        ((4,), (4,)),
    ),
    "two inputs, two outputs": (
        lambda: Apply(tuple, conv(4, 2), nn.Sequential(nn.Flatten(), nn.Linear(12, 3))),
        lambda: [nb.Parallel([nb.Conv2D(2, 3), [nb.Flatten(), nb.Dense(3)]])],
        ((5, 4, 4), (3, 4)),
    ),
}


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, array in module.state_dict().items():
            if array.is_floating_point():
                values = torch.randn(array.shape, generator=generator)
                array.copy_(values.abs() + 0.5 if "var" in name else values)
            else:
                array.fill_(7)
    return module


def outputs(module, x):
    """Of one or several inputs with the channels last; those of images have them last too."""
    xs = [torch.tensor(np.moveaxis(part, -1, 1)) for part in (x if isinstance(x, tuple) else (x,))]
    with torch.no_grad():
        y = module.eval()(*xs)
    return [np.moveaxis(part.numpy(), 1, -1) for part in (y if isinstance(y, tuple) else (y,))]


@pytest.mark.parametrize("name", TWINS)
def test_both_ways(rng, name):
    make, layers, shape = TWINS[name]
    module, model = randomised(make()), built(layers(), shape)
    nb.convert.from_torch(module, model)
    several = isinstance(shape[0], tuple)
    x = tuple(rng.standard_normal((2, *part), dtype=np.float32) for part in (shape if several else (shape,)))
    y = model.predict(x if several else x[0])
    if name != "flatten at the end":
        for mine, theirs in zip(y if isinstance(y, tuple) else [y], outputs(module, x)):
            assert_close(mine, theirs, "golden")
    back, own = nb.convert.to_torch(model, randomised(make(), seed=1)), module.state_dict()
    assert list(back) == list(own)
    if name != "batch norm of deviations":  # a deviation becomes the variance that gives it
        assert all(back[key].dtype == own[key].dtype and torch.equal(back[key], own[key]) for key in own)
    twin = built(layers(), shape, seed=2)
    nb.convert.from_torch(back, twin)  # by the state dict alone
    assert_close(twin.state()[next(iter(twin.state()))], model.state()[next(iter(model.state()))], "golden")
    if name != "batch norm of deviations":
        assert everything(twin) == everything(model)


def test_a_trained_network_there_and_back(rng):
    """Convolution, batch norm, ReLU, pooling, flatten, linear: bits of weights, and outputs within 1e-5."""

    def network():
        torch.manual_seed(0)
        pooled = nn.Sequential(conv(1, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(8 * 4 * 3, 3))

    module = network()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(5):
        x, y = torch.tensor(rng.standard_normal((16, 1, 8, 6), dtype=np.float32)), torch.tensor(rng.integers(0, 3, 16))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    model = built([nb.Conv2D(8, 3, use_bias=False), nb.BatchNorm(), nb.ReLU(), nb.MaxPool2D(2), nb.Flatten(), nb.Dense(3)], (8, 6, 1))
    pairs = nb.convert.from_torch(module, model)
    assert pairs == {"0": "0.conv2d", "1": "1.batchnorm", "5": "5.dense"}
    assert module.training  # it is as it was
    assert all(part.training for part in module.modules())
    assert model.buffers["1.batchnorm.updates"][0] == 5
    x = rng.standard_normal((8, 8, 6, 1), dtype=np.float32)
    (wanted,) = outputs(module, x)
    assert np.abs(model.predict(x) - wanted).max() <= 1e-5
    twin = network()
    assert twin.load_state_dict(nb.convert.to_torch(model, twin)).missing_keys == []
    assert all(torch.equal(twin.state_dict()[key], array) for key, array in module.state_dict().items())
    plain = nb.convert.to_torch(model)  # the names of an nn.Sequential with the same layers
    assert plain.keys() == module.state_dict().keys()
    assert all(plain[key].tobytes() == array.numpy().tobytes() for key, array in module.state_dict().items())


def test_the_probe_finds_what_names_and_shapes_do_not():
    """Another padding, another activation, another order: an error, and all bits as before."""
    layers = [nb.Conv2D(4, 3, stride=2), nb.ReLU(), nb.Flatten(), nb.Dense(3)]
    model = built(layers, (6, 6, 4))

    def module(padding, activation):
        return randomised(nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=padding), activation, nn.Flatten(), nn.Linear(36, 3)))

    before = everything(model)
    for wrong in (module(1, nn.ReLU()), module(1, nn.Tanh())):  # "same" pads at the end
        with pytest.raises(ArgumentError, match=r"outputs of both models differ by .* tolerance=0\.0001.*nothing was changed"):
            nb.convert.from_torch(wrong, model)
        with pytest.raises(ArgumentError, match="outputs of both models differ"):
            nb.convert.to_torch(model, wrong)
        assert everything(model) == before
    with pytest.raises(ArgumentError, match=r"the other model cannot take an input of shape \(3, 4, 6, 6\): RuntimeError"):
        nb.convert.from_torch(module(0, nn.ReLU()), model)  # 2x2 outputs for a Linear of 36
    assert everything(model) == before
    nb.convert.from_torch(module(1, nn.Tanh()), model, tolerance=None)
    assert everything(model) != before


def test_the_probe_finds_the_order_of_flatten(monkeypatch):
    make, layers, shape = TWINS["flatten a sequence"]
    module, model = randomised(make()), built(layers(), shape)
    before = everything(model)
    monkeypatch.setattr(slots, "permutation", lambda shape: None)
    with pytest.raises(ArgumentError, match="outputs of both models differ"):
        nb.convert.from_torch(module, model)
    assert everything(model) == before


def test_eps_and_momentum():
    model = built([nb.BatchNorm(), nb.LayerNorm()], (4,))
    before = everything(model)
    for module, error in (
        (nn.Sequential(nn.BatchNorm1d(4, eps=1e-3), nn.LayerNorm(4)), r"'0' has eps=0\.001, layer 0\.batchnorm eps=1e-05"),
        (
            nn.Sequential(nn.BatchNorm1d(4, momentum=0.01), nn.LayerNorm(4)),
            r"'0' has decay=0\.99, layer 0\.batchnorm decay=0\.9: .*decay=0\.99",
        ),
        (nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.LayerNorm(4)), r"'0' has decay=None, layer 0\.batchnorm decay=0\.9: "),
        (nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4, eps=1e-6)), r"'1' has eps=1e-06, layer 1\.layernorm eps=1e-05"),
    ):
        with pytest.raises(ArgumentError, match=error):
            nb.convert.from_torch(randomised(module), model)
        with pytest.raises(ArgumentError, match=error):
            nb.convert.to_torch(model, module)
        assert everything(model) == before
    module = randomised(nn.Sequential(nn.BatchNorm1d(4, eps=1e-3, momentum=0.25), nn.LayerNorm(4, eps=1e-6)))
    with pytest.raises(ArgumentError, match="norms='sett': expected 'check' or 'set'"):
        nb.convert.from_torch(module, model, norms="sett")
    nb.convert.from_torch(module, model, norms="set")
    assert (model[0].eps, model[0].decay, model[1].eps) == (1e-3, 0.75, 1e-6)
    assert repr(model) == "nb.Sequential([nb.BatchNorm(decay=0.75, eps=0.001), nb.LayerNorm(eps=1e-06)])"


def test_options_that_are_set_reach_the_next_steps_of_a_trainer(rng):
    """The Trainer repeats recorded passes: they must not keep the old eps."""
    x, y = rng.standard_normal((8, 4), dtype=np.float32), np.arange(8) % 2
    module = randomised(nn.Sequential(nn.BatchNorm1d(4, eps=0.5, momentum=0.5), nn.Linear(4, 2)))
    results = []
    for replay in (True, False):
        model = built([nb.BatchNorm(), nb.Dense(2)], (4,))
        trainer = nb.Trainer(model, optimizer=nb.SGD(0.1), replay=replay)
        for _ in range(4):
            trainer.train_batch(x, y)
        nb.convert.from_torch(module, model, norms="set")
        for _ in range(4):
            trainer.train_batch(x, y)
        results.append(everything(model))
    assert results[0] == results[1]


def test_names():
    """A module that registers its layers in another order than it runs them."""

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x))

    module, model = randomised(Module()), built([nb.Dense(4), nb.Dense(4)], (4,))
    before = everything(model)
    with pytest.raises(ArgumentError, match="outputs of both models differ"):
        nb.convert.from_torch(module, model)
    for names, error in (
        ({"first": "0.dense"}, r"no partner for 'last' of the module and '1\.dense' of the model: name each in names="),
        ({"frist": "0.dense"}, "names: unknown layer of the module 'frist': did you mean 'first'"),
        ({"first": "0.dence"}, "names: unknown layer with weights '0.dence': did you mean '0.dense'"),
        ({"first": "0.dense", "last": "0.dense"}, r"no partner for 'last' of the module and '1\.dense' of the model"),
        ({"first": 0}, "expected a dict from names"),
        (["first"], "expected a dict from names"),
    ):
        with pytest.raises(ArgumentError, match=error):
            nb.convert.from_torch(module, model, names=names)
    assert everything(model) == before
    names = {"first": "0.dense", "last": "1.dense"}
    assert nb.convert.from_torch(module, model, names=names) == {"first": "0.dense", "last": "1.dense"}
    back = nb.convert.to_torch(model, module, names=names)
    assert all(torch.equal(back[key], array) for key, array in module.state_dict().items())
    labelled = built([nb.Dense(4).named("first"), nb.Dense(4).named("last")], (4,))
    assert nb.convert.from_torch(module, labelled) == {"first": "first", "last": "last"}  # equal names need no more
    assert labelled.params["first.bias"].value.tobytes() == module.first.bias.detach().numpy().tobytes()


def test_other_dtypes_and_bare_modules(rng):
    model = built([nb.Dense(3)], (4,), dtype="float64")
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.1), (torch.float16, 0.01)):
        module = randomised(nn.Linear(4, 3)).to(dtype)
        assert nb.convert.from_torch(module, model, tolerance=tolerance) == {"": "0.dense"}
        wanted = module.weight.detach().double().numpy().T
        assert np.array_equal(model.params["0.dense.weight"].value, wanted)
        back = nb.convert.to_torch(model, module, tolerance=tolerance)
        assert torch.equal(back["weight"], module.weight)
        assert back["bias"].dtype == dtype
    big = {"weight": torch.full((3, 4), 1e300, dtype=torch.float64), "bias": torch.zeros(3)}
    with pytest.raises(nb.errors.NonFiniteError, match="weight has NaN, infinity"):
        nb.convert.from_torch(big, built([nb.Dense(3)], (4,)))
    with pytest.raises(nb.errors.DTypeError, match=r"weight is not a plain tensor .*, expected a dense one"):
        nb.convert.from_torch(big | {"weight": torch.zeros(3, 4).to_sparse()}, model)
    with pytest.raises(nb.errors.DTypeError, match="weight is not a plain tensor"):
        nb.convert.from_torch(nn.Linear(4, 3, device="meta"), model)
    with pytest.raises(nb.errors.DTypeError, match="complex64, expected real numbers"):
        nb.convert.from_torch(big | {"weight": torch.zeros(3, 4, dtype=torch.complex64)}, model)


def test_files(tmp_path):
    make, layers, shape = TWINS["residual"]
    module, model = randomised(make()), built(layers(), shape)
    nb.convert.from_torch(module, model)
    wanted = everything(model)
    torch.save(module.state_dict(), tmp_path / "a.pt")
    torch.save(
        {"epoch": 3, "model": module.state_dict(), "optimizer": torch.optim.SGD(module.parameters(), 0.1).state_dict()}, tmp_path / "b.pth"
    )
    for name in ("a.pt", "b.pth"):
        model = built(layers(), shape)
        nb.convert.from_torch(tmp_path / name, model)
        assert everything(model) == wanted


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_bad_files_of_torch(tmp_path, rng):
    model = built([nb.Dense(3)], (4,))
    before, module = everything(model), nn.Linear(4, 3)
    path = tmp_path / "a.pt"
    torch.save(module.state_dict(), path)
    whole = path.read_bytes()
    cases = [whole[: len(whole) // 2], b"", bytes(rng.integers(0, 256, 500, dtype=np.uint8)), b"PK\x03\x04" + whole[50:90]]
    for data in cases:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"^cannot read .*a\.pt \(.*\): expected a state dict.*$"):
            nb.convert.from_torch(path, model)
    for thing in (Attack(), {"weight": torch.zeros(3, 4), "bias": Attack()}, module):
        torch.save(thing, path)
        with pytest.raises(CheckpointError, match=r"cannot read .* expected a state dict, written by torch\.save"):
            nb.convert.from_torch(path, model)
    for thing in ([1, 2], {"a": 1}, {"a": module.state_dict(), "b": module.state_dict()}, {}, 3):
        torch.save(thing, path)
        with pytest.raises(ArgumentError, match="is not a state dict"):
            nb.convert.from_torch(path, model)
    huge = torch.zeros(1).expand(10**7, 10**7)  # 400 TB, of which a file holds 4 bytes
    torch.save({"weight": huge, "bias": torch.zeros(3)}, path)
    with pytest.raises(ShapeError, match=r"weight \(10000000, 10000000\)"):
        nb.convert.from_torch(path, model)
    assert everything(model) == before


def test_what_cannot_be_told():
    module = nn.Sequential(nn.Flatten(), nn.Linear(24, 3))
    for layers, error in (
        ([nb.Permute((2, 3, 1)), nb.Flatten(), nb.Dense(3)], "2.dense .* order in PyTorch is unknown: expected no Permute"),
        ([nb.Concat([nb.Permute((2, 3, 1)), nb.Permute((2, 3, 1))]), nb.Flatten(), nb.Dense(3)], "order in PyTorch is unknown"),
        ([nb.Reshape((2, 3, 4)), nb.Flatten(), nb.Dense(3)], "order in PyTorch is unknown"),
        ([nb.Flatten(), nb.Residual(nb.Dense(24)), nb.Dense(3)], "2.dense .* order in PyTorch is unknown"),
        ([nb.Flatten(), nb.GroupNorm(2), nb.Dense(3)], "1.groupnorm .* order in PyTorch is unknown"),
        ([nb.LayerNorm(axes=(-2, -1)), nb.Flatten(), nb.Dense(3)], "normalises over 2 of 3 axes"),
    ):
        model = built(layers, (3, 2, 4))
        with pytest.raises(ArgumentError, match=error):
            nb.convert.from_torch(module if "axes" not in error else nn.Sequential(nn.LayerNorm((3, 2)), *module), model)
