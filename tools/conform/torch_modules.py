"""Inputs of PyTorch's ModuleInfo on nbnet, with the gradients of the input and the parameters."""

import copy
import functools
import warnings

import torch

from conform import calls, torch_ops

partial = functools.partial


def cases(expanded):
    from torch.testing._internal.common_modules import module_db

    torch.manual_seed(0)
    for info in module_db:
        for dtype in (torch.float32, torch.float64) if info.name in MODULES else ():
            for training in (True, False):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    inputs = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=training)
                    yield from _of(info, inputs, dtype, training)


def _of(info, inputs, dtype, training):
    for i, each in enumerate(inputs):
        if each.forward_input is None:
            continue
        args, kwargs = each.constructor_input.args, each.constructor_input.kwargs
        module = info.module_cls(*args, **kwargs).to(dtype)
        module.train(training)
        forward = each.forward_input
        if not forward.args:
            continue
        if "Lazy" in info.name:
            module(forward.args[0])
        wide = copy.deepcopy(module).double()
        call = partial(torch_ops.compare, _without_module(partial(MODULES[info.name], module)), wide)
        call = partial(call, forward.args[0], forward.args[1:], forward.kwargs, dict(wide.named_parameters()))
        yield info.name, f"{'training' if training else 'evaluation'} {dtype} {i} {each.desc}", call


def _without_module(adapter):
    """The adapter, with its first argument under the name that the gradients have."""
    return lambda data, *args, **kwargs: adapter(data, *args, **kwargs)


def _tensor(value):
    return None if value is None else value.detach().numpy()


def _conv(dims, m, x):
    modes = {"replicate": "edge", "circular": "wrap"}
    mode = modes.get(m.padding_mode, m.padding_mode)
    return calls.conv(dims, x, _tensor(m.weight), _tensor(m.bias), m.stride, m.padding, m.dilation, m.groups, mode)


def _conv_transpose(dims, m, x):
    return calls.conv_transpose(dims, x, _tensor(m.weight), _tensor(m.bias), m.stride, m.padding, m.output_padding, m.groups, m.dilation)


def _max_pool(dims, m, x):
    return calls.max_pool(dims, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices)


def _avg_pool(dims, m, x):
    divisor = getattr(m, "divisor_override", None)
    return calls.avg_pool(dims, x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, divisor)


def _batch_norm(m, x):
    training = m.training or m.running_mean is None
    return calls.batch_norm(x, _tensor(m.running_mean), _tensor(m.running_var), _tensor(m.weight), _tensor(m.bias), training, eps=m.eps)


def _instance_norm(dims, m, x):
    if x.ndim == dims + 1:
        y, backward = _instance_norm(dims, m, x[None])
        return y[0], lambda dy: {name: g[0] if name == "data" else g for name, g in backward(dy[None]).items()}
    if not m.training and m.running_mean is not None:
        return calls.batch_norm(x, _tensor(m.running_mean), _tensor(m.running_var), _tensor(m.weight), _tensor(m.bias), eps=m.eps)
    return calls.group_norm(x, x.shape[1], _tensor(m.weight), _tensor(m.bias), m.eps)


def _pad(mode, m, x):
    around = m.padding
    return torch_ops.OPERATORS["nn.functional.pad"](x, around, mode, getattr(m, "value", 0))


def _plain(name):
    return lambda m, x: calls.activation(name, x)


MODULES = {
    **{f"nn.{prefix}Conv{d}d": partial(_conv, d) for d in (1, 2, 3) for prefix in ("", "Lazy")},
    **{f"nn.{prefix}ConvTranspose{d}d": partial(_conv_transpose, d) for d in (1, 2, 3) for prefix in ("", "Lazy")},
    **{f"nn.MaxPool{d}d": partial(_max_pool, d) for d in (1, 2, 3)},
    **{f"nn.AvgPool{d}d": partial(_avg_pool, d) for d in (1, 2, 3)},
    **{f"nn.AdaptiveAvgPool{d}d": lambda m, x, d=d: calls.adaptive_avg_pool(d, x, m.output_size) for d in (1, 2, 3)},
    **{f"nn.BatchNorm{d}d": _batch_norm for d in (1, 2, 3)},
    **{f"nn.InstanceNorm{d}d": partial(_instance_norm, d) for d in (1, 2, 3)},
    "nn.GroupNorm": lambda m, x: calls.group_norm(x, m.num_groups, _tensor(m.weight), _tensor(m.bias), m.eps),
    "nn.LayerNorm": lambda m, x: calls.layer_norm(x, m.normalized_shape, _tensor(m.weight), _tensor(m.bias), m.eps),
    "nn.RMSNorm": lambda m, x: calls.rms_norm(x, m.normalized_shape, _tensor(m.weight), m.eps),
    "nn.Linear": lambda m, x: calls.linear(x, _tensor(m.weight), _tensor(m.bias)),
    "nn.LeakyReLU": lambda m, x: calls.activation("leaky_relu", x, slope=m.negative_slope),
    "nn.GELU": lambda m, x: calls.activation("gelu", x, approximate=m.approximate),
    "nn.ELU": lambda m, x: calls.activation("elu", x, alpha=m.alpha),
    "nn.CELU": lambda m, x: calls.activation("celu", x, alpha=m.alpha),
    "nn.Softplus": lambda m, x: calls.activation("softplus", x, beta=m.beta, threshold=m.threshold),
    "nn.Hardtanh": lambda m, x: calls.activation("hardtanh", x, low=m.min_val, high=m.max_val),
    "nn.PReLU": lambda m, x: calls.prelu(x, _tensor(m.weight)),
    **{f"nn.{name}": _plain(name.lower()) for name in ("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "LogSigmoid")},
    **{f"nn.{name}": _plain(name.lower()) for name in ("Sigmoid", "Tanh", "Softsign")},
    "nn.Softmax": lambda m, x: calls.of_rows("softmax", x, m.dim),
    "nn.Softmax2d": lambda m, x: calls.of_rows("softmax", x, -3),
    "nn.LogSoftmax": lambda m, x: calls.of_rows("log_softmax", x, m.dim),
    "nn.CrossEntropyLoss": lambda m, x, target: calls.cross_entropy(
        x, target, None if m.weight is None else _tensor(m.weight), m.ignore_index, m.reduction, m.label_smoothing
    ),
    "nn.MSELoss": lambda m, x, target: calls.mse_loss(x, target, m.reduction),
    "nn.L1Loss": lambda m, x, target: calls.l1_loss(x, target, m.reduction),
    "nn.HuberLoss": lambda m, x, target: calls.huber_loss(x, target, m.reduction, m.delta),
    **{f"nn.{name}Pad{d}d": partial(_pad, mode) for d in (1, 2, 3) for name, mode in torch_ops.PADS.items()},
}
