"""A short run of the mutations in `annotations`. The long one is a command."""

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.fuzz import annotations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", annotations.TARGETS)
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_mutated_files_are_read_or_refused_with_their_name(name, data, folder):
    root = folder / name.replace(" ", "_")
    target = annotations.TARGETS[name] if root.exists() else annotations.prepared(name, root)
    annotations.example(
        target, root, annotations.Shrinking(data)
    )  # asserts what was read, or the message
