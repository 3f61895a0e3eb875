"""What files may contain."""

import json
import math

import pytest

from nbnet import schema
from nbnet.errors import CheckpointError, NbnetError

KINDS = {
    "whole": schema.whole(),
    "bounded": schema.whole(1, 9),
    "number": schema.number(0),
    "above": schema.number(above=0),
    "share": schema.number(0, most=1),
    "any": schema.number(finite=False),
    "text": schema.text(5),
    "lines": schema.text(5, lines=True),
    "name": schema.one_of(["a", "b"]),
    "truth": schema.truth,
    "perhaps": schema.optional(schema.whole()),
    "rows": schema.rows(schema.whole(), 2, 2),
    "mapping": schema.mapping(schema.whole()),
    "record": schema.record(a=schema.whole(), b=schema.record(c=schema.text())),
}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("whole", 0),
        ("whole", schema.MOST),
        ("bounded", 9),
        ("number", 0),
        ("number", 1.5),
        ("above", 1e-300),
        ("share", 0),
        ("share", 1),
        ("any", -math.inf),
        ("text", "a é"),
        ("lines", "a\nb"),
        ("name", "b"),
        ("truth", False),
        ("perhaps", None),
        ("rows", [1, 2]),
        ("mapping", {"a": 1}),
        ("record", {"a": 1, "b": {"c": ""}}),
    ],
)
def test_what_fits_comes_back(kind, value):
    assert schema.parse(json.dumps(value), KINDS[kind], "file", CheckpointError) == value
    assert math.isnan(schema.parse("NaN", KINDS["any"], "file", CheckpointError))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("whole", "1.0", "it is 1.0, expected a whole number, at least 0"),
        ("whole", "true", "it is True, expected a whole number, at least 0"),
        ("whole", "-1", "it is -1, expected a whole number, at least 0"),
        ("whole", str(10**40), "it is 1000.*000, expected a whole number, 0 to 9007199254740992"),
        ("bounded", "10", "it is 10, expected a whole number, 1 to 9"),
        ("number", "1e400", "it is inf, expected a finite number, at least 0"),
        ("number", "NaN", "it is nan, expected a finite number, at least 0"),
        ("number", '"inf"', "it is 'inf', expected a finite number, at least 0"),
        ("number", "false", "it is False, expected a finite number, at least 0"),
        ("above", "0", "it is 0, expected a finite number above 0"),
        ("share", "1.5", "it is 1.5, expected a finite number, at least 0 and at most 1"),
        ("share", "-0.5", "it is -0.5, expected a finite number, at least 0 and at most 1"),
        ("any", "1" + "0" * 400, "it is 10000.*000, expected a number"),
        ("text", '"sixsix"', "it is 'sixsix', expected a line of text, at most 5 characters"),
        ("text", r'"a\nb"', r"it is 'a\\nb', expected a line of text"),
        ("text", r'"\ud800"', r"it is '\\ud800', expected a line of text"),
        ("lines", '"sixsix"', "it is 'sixsix', expected text, at most 5 characters"),
        ("lines", r'"a\r\n"', r"it is 'a\\r\\n', expected text"),
        ("name", '["a"]', r"it is \['a'\], expected one of a, b"),
        ("name", '"c"', "it is 'c', expected one of a, b"),
        ("truth", "1", "it is 1, expected true or false"),
        ("rows", "[1]", r"it is \[1\], expected a list of 2 values"),
        ("rows", '[1, "2"]', r"it\[1\] is '2', expected a whole number, at least 0"),
        ("mapping", "[]", r"it is \[\], expected an object"),
        ("mapping", '{"a": null}', "it.a is None, expected a whole number"),
        ("record", "[1]", r"it is \[1\], expected an object"),
        ("record", '{"a": 1}', "it has no 'b', expected the keys a, b"),
        ("record", '{"a": 1, "b": {"c": ""}, "d": 1}', "it has the key 'd', expected only a, b"),
        ("record", '{"a": 1, "b": {"c": 1}}', "b.c is 1, expected a line of text"),
        ("whole", "", "it is not JSON: Expecting value"),
        ("whole", "[" * 10**5, "it is not JSON: maximum recursion depth"),
        ("whole", "9" * 5000, "it is not JSON: Exceeds the limit|it is 9999"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_where(kind, text, words):
    with pytest.raises(CheckpointError, match=f"^file is damaged: ({words})") as caught:
        schema.parse(text, KINDS[kind], "file is damaged", CheckpointError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_bytes_that_are_no_text():
    with pytest.raises(NbnetError, match=r"^file is damaged: it is not JSON: "):
        schema.parse(b'"\xff"', KINDS["text"], "file is damaged", CheckpointError)


def test_a_number_that_cannot_be_printed():
    with pytest.raises(CheckpointError, match=r"it is (a number of thousands of digits|9999)"):
        schema.fit(10**5000 - 1, KINDS["whole"], "file", CheckpointError)
