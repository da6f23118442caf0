import json

import pytest

from unitbox_tf import optional


def test_what_is_installed_is_loaded():
    assert optional.load("json", "x", "this") is json


def test_what_is_missing_is_named():
    with pytest.raises(ImportError, match=r"^this needs none_such: pip install 'unitbox_tf\[x\]'$"):
        optional.load("none_such.part", "x", "this")
