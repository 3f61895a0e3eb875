"""The errors of one line that calls raise, and the code in them."""

import re

import pytest

import nbnet as nb


def said(call):
    """The message of the error that a call raises."""
    with pytest.raises(nb.NbnetError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def code(pattern, message):
    """What the group in the pattern matches in a message."""
    found = re.search(pattern, message)
    assert found, message
    return found[1]
