"""MATLAB's files that state more than they have: refused before SciPy allocates it."""

import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import scipy.io

from tests.helpers.wider_face import cell
from unitbox_tf.evaluation import mat_files

h5py = pytest.importorskip("h5py")


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind, sides, *parts, name=b"x"):
    head = element(6, struct.pack("<II", kind, 0)) + element(
        5, struct.pack(f"<{len(sides)}i", *sides)
    )
    return element(14, head + element(1, name) + b"".join(parts))


def packed(content):
    return struct.pack("<II", 15, len(zlib.compress(content))) + zlib.compress(content)


def write(path, content):
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + content)
    return path


@pytest.mark.parametrize("compress", [True, False])
def test_cells_texts_and_numbers_are_read_as_scipy_reads_them(tmp_path, compress):
    values = {
        "texts": cell(["a", "", "äö", "long" * 99]),
        "numbers": cell([np.eye(3), np.zeros((0, 0)), np.arange(5, dtype=np.int32)[:, None]]),
        "nested": cell([cell(["x"]), cell([])]),
        "whole": np.arange(300, dtype=np.uint16).reshape(3, 100),
    }
    scipy.io.savemat(tmp_path / "x.mat", values, do_compression=compress)
    expected = scipy.io.loadmat(tmp_path / "x.mat")
    found = mat_files.load(tmp_path / "x.mat", [*values, "absent"])
    assert found.keys() >= values.keys()
    for name in values:
        assert repr(found[name]) == repr(expected[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (array(1, [30_000, 30_000]), "an array of 900,000,000 values in 0 bytes"),
        (array(4, [1, 2**31 - 1], element(16, b"")), "values in 8 bytes"),
        (array(6, [2**30, 2**30], element(9, bytes(8))), "values in 16 bytes"),
        (array(6, [-(2**30), 2], element(9, bytes(8))), "values in 16 bytes"),
        (packed(array(1, [9, 9, 9])), "an array of 729 values in 0 bytes"),
        (array(2, [1, 1]), "an array of the class 2"),  # a struct
        (array(3, [1, 1]), "an array of the class 3"),  # an object
        (array(5, [1, 1]), "an array of the class 5"),  # sparse
        (struct.pack("<II", 14, 1 << 31), "an element of 2147483648 bytes ends beyond the file"),
        (element(14, b""), "Did not read any bytes"),
        (b"\1\2\3", "an element ends early"),
        (element(3, b"12345678"), "an element of the type 3 in the place of an array"),
    ],
)
def test_what_states_more_than_there_is_is_refused(tmp_path, content, message):
    path = write(tmp_path / "x.mat", content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: expected a MATLAB file")) as error:
        mat_files.load(path, ["x"])
    assert message in str(error.value)


def test_arrays_too_deep_in_each_other_are_refused(tmp_path):
    content = array(6, [1, 1], element(9, bytes(8)))
    for _ in range(20):
        content = array(1, [1, 1], content)
    with pytest.raises(ValueError, match="more than 8 arrays in each other"):
        mat_files.load(write(tmp_path / "x.mat", content), ["x"])


MEASURE = """
import resource, sys
from pathlib import Path
from unitbox_tf.evaluation import mat_files
import scipy.io
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
try:
    mat_files.load(Path(sys.argv[1]), ["x"])
except ValueError as error:
    print(str(error)[-60:])
print(peak() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only"
)
def test_a_packed_bomb_takes_bounded_memory(tmp_path):
    packing = zlib.compressobj(1)
    size = 1 << 29
    parts = [packing.compress(struct.pack("<II", 14, size))]
    parts += [packing.compress(bytes(1 << 24)) for _ in range(size >> 24)]
    content = b"".join([*parts, packing.flush()])
    path = write(tmp_path / "x.mat", struct.pack("<II", 15, len(content)) + content)
    assert path.stat().st_size < 4e6
    command = [sys.executable, "-c", MEASURE, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    reason, peak = result.stdout.splitlines()
    assert reason.endswith("more than 268,435,456 bytes when it is unpacked")
    assert int(peak) < 800e6


def curve(path, **more):
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("pr_cruve", **more)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    return path


def test_a_curve_is_read_from_the_file_itself_alone(tmp_path):
    rows = np.random.default_rng(0).random((2, 9))
    path = tmp_path / "x.mat"
    np.testing.assert_array_equal(mat_files.load_curve(curve(path, data=rows)), rows.T)
    (tmp_path / "secret").write_bytes(bytes(160))
    outside = [(str(tmp_path / "secret"), 0, 160)]
    refused = "expected at most 1,048,576 numbers pr_cruve in the file itself"
    with pytest.raises(ValueError, match=refused):
        mat_files.load_curve(curve(path, shape=(2, 10), dtype=float, external=outside))
    with pytest.raises(ValueError, match=refused):
        mat_files.load_curve(curve(path, shape=(1 << 15, 1 << 15), dtype=float, chunks=True))
    with h5py.File(path, "w") as file:
        file["pr_cruve"] = h5py.ExternalLink(str(tmp_path / "secret"), "x")
    path.write_bytes(b"MATLAB 7.3".ljust(512) + path.read_bytes())
    with pytest.raises(ValueError, match=refused):
        mat_files.load_curve(path)
