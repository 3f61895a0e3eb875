"""A repr that can be pasted back as code, made from the arguments of the constructor."""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, ParamSpec

import numpy as np

from nbnet.hints import check_keywords

Options = ParamSpec("Options")
WIDTH = 100  # characters; above this, a list is printed with one element per line


class _Signature:
    """The signature of `__init__`, for inspect and help: they would show that of CodeRepr.__new__."""

    def __get__(self, instance: object, owner: type) -> inspect.Signature:
        if instance is not None:  # a callable instance has the signature of its __call__
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class _Weak:
    """An argument that is not a plain value: its type, and the object as long as somebody else keeps it."""

    def __init__(self, value: Any) -> None:
        self.type = type(value)
        try:
            self.get: Callable[[], Any] = weakref.ref(value)
        except TypeError:  # such as a list
            self.get = _gone

    def __reduce__(self) -> tuple[Any, ...]:  # of a copy
        return _Weak, (None,)


def _gone() -> None:
    """What a reference returns whose object is gone."""


def _kept(value: Any) -> Any:
    plain = value is None or isinstance(value, (bool, Real, str, np.dtype, type, Made))
    return value if plain or (isinstance(value, tuple) and all(_kept(each) is each for each in value)) else _Weak(value)


class CodeRepr:
    """Mixin whose repr is the call that makes an equal object: `nb.Adam(0.001, weight_decay=0.1)`.

    An argument is shown as the attribute of the same name where there is one of the same kind (it may have changed since), and
    otherwise as it was passed. Arguments that equal their defaults are left out. Only classes that `nbnet` exports get "nb.", or
    those of `nbnet.losses`, `nbnet.metrics` and `nbnet.callbacks` their names.
    """

    __signature__ = _Signature()
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _always_shown: str | None = None  # the name of a first argument that is shown though it has a default
    _attributes: dict[str, str] = {}  # of arguments whose attribute has another name
    _package = "nbnet"  # which exports the class

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if kwargs:
            check_keywords(cls, kwargs)
        self = super().__new__(cls)
        self.__dict__["_arguments"] = tuple(map(_kept, args)), {name: _kept(value) for name, value in kwargs.items()}
        return self

    def __init__(self) -> None:
        """Without this, object.__init__ would accept any arguments."""

    def __repr__(self) -> str:
        cls = type(self)
        top, *inner = f"{cls._package}.{cls.__name__}".split(".")
        exported = functools.reduce(lambda where, name: getattr(where, name, None), inner, sys.modules.get(top)) is cls
        name = f"{cls._package.replace('nbnet', 'nb', 1)}.{cls.__name__}" if exported else cls.__name__
        try:
            parts = list(self._parts())
        except (TypeError, AttributeError):  # made in another way than by its constructor
            return f"<{name}>"
        line = f"{name}({', '.join(name + _code(value) for name, value in parts)})"
        if len(line) <= WIDTH or not any(isinstance(value, (list, tuple)) for _, value in parts):
            return line
        return f"{name}({', '.join(name + _long_code(value) for name, value in parts)})"

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Each argument that is shown: "" or "name=", and the value."""
        signature = inspect.signature(type(self))
        args, kwargs = self._arguments
        bound = signature.bind(*args, **kwargs)
        positional = True  # until an argument is shown with its name, or left out
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                passed = bound.arguments.get(name, ())
                current = getattr(self, name, None)
                values = current if isinstance(current, tuple) and len(current) == len(passed) else map(_value, passed)
                yield from (("", value) for value in values)
            elif parameter.kind is parameter.VAR_KEYWORD:
                yield from ((f"{key}=", _value(value)) for key, value in bound.arguments.get(name, {}).items())
            else:
                value = self._current(name, bound.arguments.get(name, parameter.default))
                required = parameter.default is parameter.empty or name == self._always_shown
                positional = positional and required and parameter.kind is not parameter.KEYWORD_ONLY
                if required or not _same(value, parameter.default):
                    yield "" if positional else f"{name}=", value

    def _current(self, name: str, passed: Any) -> Any:
        missing = object()
        value = getattr(self, self._attributes.get(name, name), missing)
        if isinstance(passed, _Weak):
            return _value(passed) if value is missing else value
        alike = type(value) is type(passed) or (_is_number(value) and _is_number(passed))
        return value if alike else passed


def _value(passed: Any) -> Any:
    if not isinstance(passed, _Weak):
        return passed
    value = passed.get()
    return ... if value is None else value


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


class Made:
    """A function whose repr is the call that made it, in code and in pickles: `make(*args, **options)`, of the module `where`."""

    def __init__(self, function: Callable[..., Any], where: str, make: Callable[..., Any], /, *args: Any, **options: Any) -> None:
        self._function, self._call = function, (make, args, options)
        shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in options.items())]
        self._code = f"{where}.{make.__name__}({', '.join(shown)})"

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __repr__(self) -> str:
        return self._code

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, self._call


def _make(make: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return make(*args, **options)


def shown(module: str) -> Callable[[Callable[Options, Any]], Callable[Options, Any]]:
    """A decorator for functions that return functions, which become Made: `nb.schedules.cosine(0.1)`, or "nb.<module>.<name>(...)"."""

    def decorate(make: Callable[Options, Any]) -> Callable[Options, Any]:
        @functools.wraps(make)
        def made(*args: Options.args, **options: Options.kwargs) -> Any:
            return Made(make(*args, **options), module, made, *args, **options)

        return made

    return decorate
