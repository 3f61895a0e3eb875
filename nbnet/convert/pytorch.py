"""PyTorch's side: modules, state dicts and their files. torch is imported only for what needs it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nbnet import storage
from nbnet.convert.matching import Source, Unit
from nbnet.convert.probe import unreadable
from nbnet.convert.table import TORCH, known_class
from nbnet.errors import ArgumentError, CheckpointError, ExtraError

WHOLE = "a state dict, written by torch.save(module.state_dict(), path), without other Python objects"


def source_of(given: Any) -> Source:
    """The layers of a module, of a state dict, or of a file with one.

    Raises:
        ArgumentError: it is none of them. CheckpointError: the file cannot be read. ExtraError: it needs torch.
    """
    if is_module(given):
        return Source("the module", _units(given.state_dict(), given))
    if isinstance(given, Mapping):
        return _in_order("the state dict", _checked(given, "the state dict"))
    if isinstance(given, (str, Path)):
        return _in_order(str(given), _checked(_read(Path(given)), str(given)))
    raise ArgumentError(f"got {type(given).__name__}, expected a torch.nn.Module, a state dict, or a .pt or .safetensors file")


def is_module(given: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.nn.Module)


def _checked(state: Any, what: str) -> Mapping[str, Any]:
    """A state dict, or the only one that a dict contains."""

    def is_state(value: Any) -> bool:
        return isinstance(value, Mapping) and bool(value) and all(isinstance(key, str) and _is_array(one) for key, one in value.items())

    inner = [value for value in state.values() if is_state(value)] if isinstance(state, Mapping) else []
    if is_state(state):
        return state
    if len(inner) != 1:
        keys = ", ".join(map(str, list(state)[:8])) if isinstance(state, Mapping) else type(state).__name__
        raise ArgumentError(f"{what} is not a state dict (it has {keys or 'nothing'}): expected {WHOLE}")
    return inner[0]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape"))


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return storage.read(path)[0]
    if path.suffix not in (".pt", ".pth"):
        raise ArgumentError(f"got the file {path}, expected one that ends with .pt, .pth or .safetensors")
    if not path.is_file():
        raise CheckpointError(f"cannot read {path}: there is no such file")
    try:
        import torch
    except ImportError:
        raise ExtraError(
            f"{path} needs PyTorch: pip install torch, or save it there by safetensors.torch.save_file(module.state_dict(), ...)"
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise unreadable(path, error, WHOLE) from error


def _units(state: Mapping[str, Any], module: Any = None) -> list[Unit]:
    units: dict[str, Unit] = {}
    for key, array in state.items():
        name, _, last = key.rpartition(".")
        units.setdefault(name, Unit(name, {})).arrays[last] = array
    if module is not None:
        for unit in units.values():
            layer = module.get_submodule(unit.name)
            unit.kind = known_class(type(layer), TORCH)
            unit.settings = _settings(layer) if unit.kind else {}
    return list(units.values())


def _in_order(what: str, state: Mapping[str, Any]) -> Source:
    """The layers in the order of registration. safetensors sorts by name, "10" before "2" and a bias before its weight."""
    units, children = _units(state), dict[tuple[str, ...], dict[str, None]]()
    for unit in units:
        parts = unit.name.split(".")
        for i, part in enumerate(parts):
            children.setdefault(tuple(parts[:i]), {})[part] = None
    numbers = [[int(part) for part in parts if part.isdecimal()] for parts in children.values()]
    arrays = [list(unit.arrays) for unit in units]
    registered = all(each == sorted(each) for each in numbers) and all(
        each.index("weight") < each.index("bias") for each in arrays if {"weight", "bias"} <= {*each}
    )
    names = [name for name in state if not name.endswith("num_batches_tracked")]  # whole numbers come before or after all others
    if not what.endswith(".safetensors") and (registered or names != sorted(names)):
        return Source(what, units)
    counted = all(len(parts) == 1 or all(part.isdecimal() for part in parts) for parts in children.values())
    by_number = sorted(units, key=lambda unit: [(int(part) if part.isdecimal() else 0, part) for part in unit.name.split(".")])
    return Source(what, by_number, "all" if counted else "none")


def _settings(layer: Any) -> dict[str, float | None]:
    """eps, and the weight of the old moving value. PyTorch's momentum is that of the new one, None the average of all."""
    found: dict[str, float | None] = {}
    if hasattr(layer, "eps"):
        found["eps"] = float(np.finfo(np.float32).eps) if layer.eps is None else float(layer.eps)
    if hasattr(layer, "running_mean") and hasattr(layer, "momentum"):
        found["decay"] = None if layer.momentum is None else 1 - layer.momentum
    return found


def outputs(module: Any, state: Mapping[str, Any] | None, xs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a module gives in evaluation mode, with another state if there is one. The module stays as it is."""
    import torch

    some = next((p for p in [*module.parameters(), *module.buffers()] if p.is_floating_point()), torch.zeros(()))
    inputs = tuple([torch.from_numpy(x).to(some.device, some.dtype) for x in xs])
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad():
            y = module(*inputs) if state is None else torch.func.functional_call(module, dict(state), inputs)
    finally:
        for part, mode in modes:
            part.training = mode
    return [part.double().cpu().numpy() for part in (y if isinstance(y, (tuple, list)) else [y])]


def tensors(arrays: Mapping[str, np.ndarray], template: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays as tensors of the dtypes and devices of a state dict."""
    import torch

    return {name: torch.tensor(array).to(template[name].device, template[name].dtype) for name, array in arrays.items()}
