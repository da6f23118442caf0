import io
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from unitbox_tf import runs, weights_files
from unitbox_tf.archives import Unusable
from unitbox_tf.limits import TooLarge

LIMIT = 10**6


def test_arrays_come_back_as_numpy_saved_them(tmp_path, random):
    arrays = {
        "000 conv/kernel": random.random((3, 3, 2, 4), np.float32),
        "one": np.float64(3.5),
        "none": np.zeros((0, 3), np.float16),
        "columns": np.asfortranarray(random.random((5, 6))),
        "steps": np.array([1, 2], np.int64),
        "flags": np.array([True, False]),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    read = weights_files.read_npz(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(read[name], expected, strict=True)


def test_published_weights_are_what_numpy_reads():
    path = runs.Run(runs.FOLDER / "faces").weights
    read = weights_files.read_npz(path)
    with np.load(path) as expected:
        assert list(read) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(read[name], expected[name], strict=True)


def npy(shape, descr="<f4", data=b"", version=b"\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("(10000000000,)"), "expected 40000000000 bytes for an array"),
        (npy("(2, 2)", data=bytes(15)), "expected 16 bytes for an array .2, 2.. Received: 15"),
        (npy("(2,)", "|O", bytes(16)), "expected an array of numbers, as numpy.save writes it"),
        (npy("(2,)", "<U9", bytes(72)), "expected an array of numbers"),
        (npy("(2,)", "<c8", bytes(16)), "expected an array of numbers"),
        (npy("__import__('os').system('touch evil')"), "expected an array of numbers"),
        (npy("(" * 500), "expected an array of numbers"),
        (npy("(-1,)"), "expected an array of numbers"),
        (npy("(2,)", version=b"\x03\x00"), "expected an array of numbers"),
        (b"", "expected an array of numbers"),
    ],
)
def test_what_numpy_would_believe_is_refused(member, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.npz", "w") as file:
        file.writestr("000 w.npy", member)
    with pytest.raises(Unusable, match=rf"^a\.npz: '000 w\.npy': {message}"):
        weights_files.read_npz("a.npz")
    assert [each.name for each in tmp_path.iterdir()] == ["a.npz"]


def test_an_object_that_runs_when_it_is_read_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "evil"), "w")

    np.savez(tmp_path / "a.npz", np.array([Evil()], object))
    assert not (tmp_path / "evil").exists()
    with pytest.raises(Unusable, match="expected an array of numbers"):
        weights_files.read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "evil").exists()


def test_weights_that_are_not_finite_are_named():
    fine, wrong = np.ones(3, np.float16), np.array([1, np.nan, -np.inf], np.float32)
    weights_files.check_finite("a", {"fine": fine, "steps": np.array([1])})
    with pytest.raises(Unusable, match=r"a: head/bias: expected finite .* 2 of 3 that are not"):
        weights_files.check_finite("a", {"fine": fine, "head/bias": wrong})


def h5(tmp_path, fill):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/one/vars/0"] = np.ones((3, 4), np.float32)
        fill(file)
    return path


def test_plain_arrays_are_told_by_their_shapes(tmp_path):
    def fill(file):
        file["layers/one/vars/1"] = np.float32(2)
        file["layers"].attrs["name"] = "layers"
        file.attrs["layer_names"] = [b"one", b"two"]

    assert sorted(weights_files.check_h5(h5(tmp_path, fill), LIMIT)) == [(), (3, 4)]


def external_link(file):
    file["x"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file):
    file["x"] = h5py.SoftLink("/layers")


def second_name(file):
    file["layers/x"] = file["layers"]


def second_name_of_an_array(file):
    file["x"] = file["layers/one/vars/0"]


def external_storage(file):
    file.create_dataset("x", (16,), "u1", external=[("canary", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((16,), "u1")
    layout[:] = h5py.VirtualSource("canary.h5", "x", (16,))
    file.create_virtual_dataset("x", layout)


def compressed(file):
    file.create_dataset("x", data=np.zeros(10**6, np.float32), compression="gzip")


def absent_chunks(file):
    file.create_dataset("x", (10**12,), np.float32, chunks=(10**4,))


def absent(file):
    file.create_dataset("x", (10**12,), np.float32)


def texts(file):
    file["x"] = ["a", "b"]


def records(file):
    file["x"] = np.zeros(2, [("a", "f4")])


def references(file):
    file["x"] = np.array([file["layers"].ref], h5py.ref_dtype)


def large_attribute(file):
    file["layers"].attrs.create("names", np.zeros(20_000, "u1"))


def named_type(file):
    file["x"] = np.dtype("f4")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_link, "/x: expected an array or a group. Received: a link"),
        (soft_link, "/x: expected an array or a group. Received: a link"),
        (second_name, "/layers/x: expected at most .* each with one name"),
        (second_name_of_an_array, "/layers/one/vars/0: expected at most .* each with one name"),
        (external_storage, "/x: expected data in the file. Received: data of another file"),
        (virtual, "/x: expected data in the file. Received: data of another file"),
        (compressed, "/x: expected an array .* stored as it is. Received: a compressed"),
        (absent_chunks, "/x: expected an array .* Received: a compressed, chunked or absent one"),
        (absent, "/x: expected an array .* Received: a compressed, chunked or absent one"),
        (texts, "/x: expected an array of numbers"),
        (records, "/x: expected an array of numbers"),
        (references, "/x: expected an array of numbers"),
        (named_type, "/x: expected an array of numbers"),
        (large_attribute, "/layers: expected at most 10000 values in the attribute 'names'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_everything_but_plain_arrays_is_refused(fill, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary").write_bytes(b"sixteen secrets!")
    path = h5(tmp_path, fill)
    (tmp_path / "canary").chmod(0)
    with pytest.raises(Unusable, match=rf"a\.weights\.h5: {message}"):
        weights_files.check_h5(path, LIMIT)


def test_other_files_are_refused_with_their_kind(tmp_path):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(b"nonsense")
    with pytest.raises(Unusable, match=r"a\.weights\.h5: expected the weights of X: "):
        weights_files.check_h5(path, LIMIT, kind="the weights of X")
    with pytest.raises(TooLarge):
        weights_files.check_h5(path, 3)


def test_small_files_that_state_much_take_no_memory(tmp_path):
    """Each of these files of at most 2 MB took 0.5 to 40 GB."""
    with zipfile.ZipFile(tmp_path / "compressed.npz", "w", zipfile.ZIP_DEFLATED, True, 1) as file:
        with file.open("000 w.npy", "w") as member:
            member.write(npy(f"({2**27},)"))
            for _ in range(2**9):
                member.write(bytes(2**20))
    with zipfile.ZipFile(tmp_path / "stated.npz", "w") as file:
        file.writestr("000 w.npy", npy(f"({10**10},)"))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, True, 1) as file:
        with file.open("class_names.json", "w") as member:
            for _ in range(2**9):
                member.write(bytes(2**20))
    (tmp_path / "a.tflite").write_bytes(content.getvalue())
    h5(tmp_path, absent)
    assert all(path.stat().st_size < 3e6 for path in tmp_path.iterdir())
    code = f"""
import pathlib, re
import h5py, numpy
from unitbox_tf import loading, weights_files
from unitbox_tf.formats import litert
def highest():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
folder, before = pathlib.Path({str(tmp_path)!r}), highest()
for name, read in (
    ("compressed.npz", weights_files.read_npz),
    ("stated.npz", weights_files.read_npz),
    ("a.weights.h5", lambda path: weights_files.check_h5(path, 10**9)),
    ("a.tflite", loading.load),
):
    try:
        read(folder / name)
    except ValueError as error:
        print(name, str(error).removeprefix(str(folder)))
print(highest() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *refused, grown = done.stdout.splitlines()
    assert len(refused) == 4, done.stdout + done.stderr
    assert float(grown) < 30  # MiB
