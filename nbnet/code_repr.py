"""A repr that can be pasted back as code, made from the arguments of the constructor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from numbers import Real
from typing import Any

WIDTH = 100  # characters; above this, a list is printed with one element per line


class _Signature:
    """The signature of `__init__`, for inspect and help: they would show that of CodeRepr.__new__."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:  # a callable instance has the signature of its __call__
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class CodeRepr:
    """Mixin whose repr is the call that makes an equal object: `nb.Adam(0.001, weight_decay=0.1)`.

    An argument is shown as the attribute of the same name where there is one of the same kind (it may have changed since), and
    otherwise as it was passed. Arguments that equal their defaults are left out. Only classes that `nbnet` exports get "nb.".
    """

    __signature__ = _Signature()
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _always_shown: str | None = None  # the name of a first argument that is shown though it has a default

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        self.__dict__["_arguments"] = args, kwargs
        return self

    def __init__(self) -> None:
        """Without this, object.__init__ would accept any arguments."""

    def __repr__(self) -> str:
        cls = type(self)
        prefix = "nb." if getattr(sys.modules.get("nbnet"), cls.__name__, None) is cls else ""
        parts = list(self._parts())
        line = f"{prefix}{cls.__name__}({', '.join(name + _code(value) for name, value in parts)})"
        if len(line) <= WIDTH or not any(isinstance(value, (list, tuple)) for _, value in parts):
            return line
        return f"{prefix}{cls.__name__}({', '.join(name + _long_code(value) for name, value in parts)})"

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Each argument that is shown: "" or "name=", and the value."""
        signature = inspect.signature(type(self))
        args, kwargs = self._arguments
        bound = signature.bind(*args, **kwargs)
        positional = True  # until an argument is shown with its name, or left out
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                yield from (("", value) for value in bound.arguments.get(name, ()))
            elif parameter.kind is parameter.VAR_KEYWORD:
                yield from ((f"{key}=", value) for key, value in bound.arguments.get(name, {}).items())
            else:
                value = self._current(name, bound.arguments.get(name, parameter.default))
                required = parameter.default is parameter.empty or name == self._always_shown
                positional = positional and required and parameter.kind is not parameter.KEYWORD_ONLY
                if required or not _same(value, parameter.default):
                    yield "" if positional else f"{name}=", value

    def _current(self, name: str, passed: Any) -> Any:
        value = vars(self).get(name, passed)
        alike = type(value) is type(passed) or (_is_number(value) and _is_number(passed)) or isinstance(passed, Iterator)
        return value if alike else passed


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value is default or ((type(value) is type(default) or _is_number(value)) and value == default))
    except ValueError:  # the truth of an array
        return False


def _code(value: Any) -> str:
    return getattr(value, "__name__", "") if inspect.isroutine(value) or inspect.isclass(value) else repr(value)


def _long_code(value: Any) -> str:
    """A list or tuple with one element per line, indented; anything else on one line."""
    if not isinstance(value, (list, tuple)) or not value:
        return _code(value)
    lines = "".join(f"    {_code(element)},\n".replace("\n", "\n    ").removesuffix("    ") for element in value)
    start, end = ("[", "]") if isinstance(value, list) else ("(", ")")
    return f"{start}\n{lines}{end}"
