"""The exceptions, and the message for an unknown name."""

from nbnet import errors


def test_unknown_names_the_nearest():
    assert errors.unknown("colour", "gren", ["red", "green"]) == "unknown colour 'gren': did you mean 'green'? choose one of red, green"
    assert "did you mean" not in errors.unknown("colour", "xyzzy", ["red", "green"])


def test_errors_are_also_the_builtin_kind():
    pairs = [
        (errors.ShapeError, ValueError),
        (errors.DTypeError, TypeError),
        (errors.BuildError, RuntimeError),
        (errors.CheckpointError, OSError),
        (errors.ExtraError, ImportError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.GradientError, AssertionError),
    ]
    for error, builtin in pairs:
        assert issubclass(error, errors.NbnetError)
        assert issubclass(error, builtin)


def test_the_first_line_of_another_library_is_plain():
    assert errors.first_line(ValueError("\n\x1b[1mno\x1b[0m file\nmore")) == "ValueError: no file"
    assert errors.first_line(KeyError()) == "KeyError"
