"""record.py's optimisers: ten steps of PyTorch's, and of Keras 3's on the backend of the environment variable KERAS_BACKEND.

The data are float64. Each case has two parameters, and its options are the same in nbnet's terms. Keras adds eps in other places (see
README.md), so its cases have epsilon=0. PyTorch's Muon computes in bfloat16; here this is float64, so that ten steps can be compared.
"""

import numpy as np
from oracle import Book

STEPS, SHAPES = 10, {"weight": (4, 3), "bias": (5,)}


def record(book, name, call, nbnet, run, names=tuple(SHAPES)):
    """run: (values, gradients of each step), lists in the order of the names -> the values after each step."""
    rng = np.random.Generator(np.random.Philox(3))
    values = [rng.normal(size=SHAPES[each]) for each in names]
    grads = [[rng.normal(size=SHAPES[each]) + 0.01 for each in names] for _ in range(STEPS)]  # none is 0
    steps = []
    for given, found in zip(grads, run(values, grads), strict=True):
        steps.append(dict(zip(names, found)) | {f"d{each}": grad for each, grad in zip(names, given)})
    book.add(name, {"kind": "optimizer", "call": call, "dtype": "float64", "nbnet": nbnet}, dict(zip(names, values)), steps, {})


def record_torch(installed):
    import torch

    book = Book("torch_optimizers", installed("torch"))
    torch.set_default_dtype(torch.float64)  # NAdam's product of momenta has it
    torch.Tensor.bfloat16 = lambda tensor: tensor.clone()  # Muon's precision

    def case(name, kind, nbnet, options, names=tuple(SHAPES), **theirs):
        def run(values, grads):
            params = [torch.nn.Parameter(torch.tensor(value)) for value in values]
            optimizer = getattr(torch.optim, kind)(params, **theirs)
            found = []
            for step in grads:
                for param, grad in zip(params, step):
                    param.grad = torch.tensor(grad)
                optimizer.step()
                found.append([param.detach().numpy().copy() for param in params])
            return found

        shown = "".join(f", {key}={value!r}" for key, value in theirs.items())
        record(book, name, f"torch.optim.{kind}(params{shown})", {"class": nbnet} | options, run, names)

    b, nb = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}, {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
    nb |= {"weight_decay": 0.1}
    r, nr = {"lr": 0.1, "alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1}, {"lr": 0.1, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}
    sgd = {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.1}
    case("sgd", "SGD", "SGD", {"lr": 0.1}, lr=0.1)
    case("sgd_momentum", "SGD", "SGD", sgd, **sgd)
    case("sgd_dampening", "SGD", "SGD", sgd | {"dampening": 0.3}, **sgd, dampening=0.3)
    case("sgd_nesterov", "SGD", "SGD", sgd | {"nesterov": True}, **sgd, nesterov=True)
    case("rmsprop", "RMSprop", "RMSProp", nr, **r)
    case("rmsprop_momentum", "RMSprop", "RMSProp", nr | {"momentum": 0.6}, **r, momentum=0.6)
    case("rmsprop_centered", "RMSprop", "RMSProp", nr | {"momentum": 0.6, "centered": True}, **r, momentum=0.6, centered=True)
    case("adagrad", "Adagrad", "Adagrad", {"lr": 0.1}, lr=0.1)
    case(
        "adagrad_initial",
        "Adagrad",
        "Adagrad",
        {"lr": 0.1, "initial": 0.2, "eps": 1e-3, "weight_decay": 0.1},
        lr=0.1,
        initial_accumulator_value=0.2,
        eps=1e-3,
        weight_decay=0.1,
    )
    case("adam", "Adam", "Adam", nb, **b)
    case("adam_default", "Adam", "Adam", {})
    case("adam_amsgrad", "Adam", "Adam", nb | {"amsgrad": True}, **b, amsgrad=True)
    case("adamw", "AdamW", "AdamW", nb, **b)
    case("adamw_amsgrad", "AdamW", "AdamW", nb | {"amsgrad": True}, **b, amsgrad=True)
    case("nadam", "NAdam", "NAdam", nb, **b)
    case("nadam_default", "NAdam", "NAdam", {})
    case("nadam_decoupled", "NAdam", "NAdam", nb | {"decoupled": True}, **b, decoupled_weight_decay=True)
    case("radam", "RAdam", "RAdam", nb, **b)
    case("radam_default", "RAdam", "RAdam", {})
    case("radam_decoupled", "RAdam", "RAdam", nb | {"decoupled": True}, **b, decoupled_weight_decay=True)
    case("muon", "Muon", "Muon", {"lr": 0.1, "weight_decay": 0.1}, ("weight",), lr=0.1, weight_decay=0.1)
    case(
        "muon_plain",
        "Muon",
        "Muon",
        {"lr": 0.1, "momentum": 0.7, "nesterov": False, "iterations": 3},
        ("weight",),
        lr=0.1,
        momentum=0.7,
        nesterov=False,
        ns_steps=3,
        weight_decay=0.0,
    )
    book.save()


def record_keras(installed):
    import keras

    book = Book("keras_optimizers", installed("keras"))
    keras.config.set_floatx("float64")

    def case(name, kind, nbnet, options, **theirs):
        def run(values, grads):
            variables = [keras.Variable(value, dtype="float64") for value in values]
            optimizer = getattr(keras.optimizers, kind)(**theirs)
            found = []
            for step in grads:
                optimizer.apply([keras.ops.convert_to_tensor(grad, "float64") for grad in step], variables)
                found.append([np.array(keras.ops.convert_to_numpy(variable)) for variable in variables])
            return found

        shown = ", ".join(f"{key}={value!r}" for key, value in theirs.items())
        record(book, name, f"keras.optimizers.{kind}({shown})", {"class": nbnet} | options, run)

    b = {"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 0.0}
    nb = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 0.0}
    decay, decoupled = {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}
    case("sgd", "SGD", "SGD", {"lr": 0.1}, learning_rate=0.1)
    case("sgd_decay", "SGD", "SGD", {"lr": 0.1} | decoupled, learning_rate=0.1, **decay)
    case("sgd_momentum", "SGD", "SGD", {"lr": 0.1, "momentum": 0.7} | decoupled, learning_rate=0.1, momentum=0.7, **decay)
    case(
        "sgd_nesterov",
        "SGD",
        "SGD",
        {"lr": 0.1, "momentum": 0.7, "nesterov": True},
        learning_rate=0.1,
        momentum=0.7,
        nesterov=True,
    )
    case("rmsprop", "RMSprop", "RMSProp", {"lr": 0.1, "rho": 0.8, "eps": 0.0}, learning_rate=0.1, rho=0.8, epsilon=0.0)
    case(
        "rmsprop_centered",
        "RMSprop",
        "RMSProp",
        {"lr": 0.1, "rho": 0.8, "eps": 0.0, "momentum": 0.6, "centered": True} | decoupled,
        learning_rate=0.1,
        rho=0.8,
        epsilon=0.0,
        momentum=0.6,
        centered=True,
        **decay,
    )
    case("adagrad", "Adagrad", "Adagrad", {"lr": 0.1, "initial": 0.1, "eps": 0.0}, learning_rate=0.1, epsilon=0.0)
    case("adam", "Adam", "Adam", nb, **b)
    case("adam_amsgrad", "Adam", "Adam", nb | {"amsgrad": True}, **b, amsgrad=True)
    case("adamw", "AdamW", "AdamW", nb | decay, **b, **decay)
    case("nadam", "Nadam", "NAdam", nb | {"momentum_decay": 1.0} | decoupled, **b, **decay)
    case("lion", "Lion", "Lion", {"lr": 0.1, "beta1": 0.8, "beta2": 0.9} | decay, learning_rate=0.1, beta_1=0.8, beta_2=0.9, **decay)
    case("lamb", "Lamb", "LAMB", nb | {"weight_decay": 0.0}, **b)
    book.save()
