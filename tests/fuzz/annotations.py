"""Mutates annotations, results, settings and journals, and reads them.

Mutations are values of other types, extremes, missing and repeated parts, bytes that are flipped or cut off. Each
read ends with records that hold what they promise, or with a `ValueError` or `OSError` that names the file. In
`test_annotations.py` Hypothesis draws some mutations of each kind; a long run draws them by chance:

    python -m tests.fuzz.annotations --examples 20000
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import copy
import csv
import io
import json
import logging
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import scipy.io
from hypothesis import strategies as st

from tests.helpers.data_sets import png
from tests.helpers.wider_face import make_truth, mat_content
from unitbox_tf import config, datasets, registry
from unitbox_tf.datasets import tfrecord
from unitbox_tf.detect import journal
from unitbox_tf.evaluation import fddb, results, wider_face
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

SECONDS = 30  # after which an example hangs
TEXTS = ["face", "cat", "dog"]
DEEP = "[" * 400 + "]" * 400
# Pieces of json; some are none, some only Python's.
RAW = [
    *(
        "null true false 0 1 -1 0.5 1e999 -1e999 NaN Infinity 1e308 2147483648 9223372036854775808".split()
    ),
    *('-0.0 1e-320 1.5 3 "" "1" "x" "face" "../x" "/etc/passwd" [] {} [[]] [1,2,3,4]'.split()),
    *(
        r'"\u0000" "\ud800" "\u001b[31m" "C:\\x" "a\nb" "%00" "é" "10, 10, 20, 20" {"id":1} [{}] [null]'.split(
            " "
        )
    ),
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 400,
    json.dumps("x" * 5000),
    json.dumps("9" * 5000),
    json.dumps("a/" * 3000),
    DEEP,
    "[" * 100_000,
    '{"a":' * 300 + "1" + "}" * 300,
    '{"size":[2,2],"counts":[1,1]}',
    '{"size":[1e308,1e308],"counts":[9]}',
    '{"size":[9,9],"counts":"' + "o" * 50 + '"}',
]
WORDS = [
    *(
        "0 1 -1 2 0.5 nan inf -inf 1e999 1e308 -1e308 1e-320 0x10 1_0 1,5 , ; : - ../x /x a.jpg face".split()
    ),
    *(
        "2147483648 9999999999999999999 true yes null ~ & * ! [ ] { } < > &amp; # | \" ' % \\ .".split()
    ),
    "",
    " ",
    "\t",
    "\0",
    "\x1b[31m",
    "\ufeff",
    "é",
    "\u2028",
    "9" * 400,
    "9" * 5000,
    "x" * 5000,
    "a/" * 3000,
    "[" * 2000,
    "*a",
    "&a [x]",
    "<!ENTITY a 'b'>",
    "<x>" * 2000,
]
BYTES = [
    b"",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r",
    b"9" * 50,
    b"\x80",
    b"[" * 50,
]
SETS = datasets.writable()
# What a mutation raises if earlier ones left nothing that it can change.
UNFIT = (ValueError, IndexError, ElementTree.ParseError, csv.Error, struct.error, RecursionError)


class Target(NamedTuple):
    """Something that is read.

    Attributes:
        write: writes valid files into a folder.
        read: reads them and checks what was read.
        files: which files are mutated, by a pattern.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], None]
    files: str


def source() -> list[Annotation]:
    """Three images with no, one and two objects."""
    boxes = [[1, 2, 13.5, 14], [5, 6, 17, 18]]
    areas = [[20.0], [], [30.5, 7.0]]
    counts = (1, 0, 2)
    return [
        Annotation(f"p/{n}", png(20, 30), boxes[:n], range(n), size=(20, 30), areas=a)
        for n, a in zip(counts, areas, strict=True)
    ]


def write_set(form: str) -> Callable[[Path], None]:
    """Writes the set in this format."""

    def write(root: Path) -> None:
        split = {"fddb": "1"}.get(form, "train")
        registry.DATASETS[form].write(source(), root / "set", split, TEXTS)

    return write


def read_set(form: str) -> Callable[[Path], None]:
    """Reads the set in this format, with all that depends on it, and converts it."""

    def read(root: Path) -> None:
        path = root / "set"
        split = {"fddb": "1"}.get(form, "train")
        text = f"{form}:{path}#{split}"
        for photos in (True, False):
            problems = Problems(logged=False)
            opened = datasets.open(text)
            opened.ids()
            names = opened.class_names()
            for annotation in opened.annotations(photos=photos, problems=problems):
                check(annotation, path, names)
            known = sum(problems.counts.values())
            assert known == len(problems.found)
            assert all(str(problem).isprintable() for problem in problems.found)
        found = datasets.load(text, problems=Problems(logged=False))
        assert all(np.isfinite(each.boxes).all() for each in found)
        shutil.rmtree(root / "out", ignore_errors=True)
        datasets.convert(text, f"coco:{root / 'out'}", photos="none")

    return read


def check(annotation: Annotation, root: Path, names: tuple[str, ...] | None) -> None:
    """Raises `AssertionError` if an annotation does not hold what `Annotation` and readers promise."""
    count = len(annotation.boxes)
    assert annotation.boxes.shape == (count, 4)
    assert np.isfinite(annotation.boxes).all()
    assert annotation.classes.shape == annotation.ignore.shape == (count,)
    assert (annotation.classes >= 0).all()
    assert not names or not count or annotation.classes.max() < len(names)
    flat = (annotation.boxes[:, 2:] <= annotation.boxes[:, :2]).any(axis=1)
    assert annotation.ignore[flat].all()
    assert annotation.size is None or 0 < min(annotation.size) <= max(annotation.size) < 2**31
    image: Any = annotation.image
    assert getattr(image, "path", image).resolve().is_relative_to(root.resolve())
    assert annotation.name.isprintable() or "\n" not in annotation.name


def write_coco_results(root: Path) -> None:
    rows = [
        {"file_name": f"p/{n}.png", "category_name": name, "bbox": [1, 2, 3.5, 4], "score": 0.5}
        for n, name in enumerate(TEXTS)
    ]
    rows.append({"image_id": "p/1.png", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1})
    (root / "found.json").write_text(json.dumps(rows))


def write_fddb_results(root: Path) -> None:
    (root / "found.txt").write_text("p/0\n1\n1 2 3 4 0.5\np/1\n2\n1 2 3 4 0.5\n2 3 4 5 0.25\n")


def write_wider_results(root: Path) -> None:
    for n in range(3):
        path = root / f"wider/p/{n}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{n}\n1\n1 2 3 4 0.5\n")


def read_results(name: str) -> Callable[[Path], None]:
    """Reads detections, in the form that their name tells."""

    def read(root: Path) -> None:
        judged = [
            Annotation(
                f"p/{n}.{'jpg' if name == 'wider' else 'png'}", b"", [[1, 2, 3, 4]], size=(20, 30)
            )
            for n in range(3)
        ]
        problems = Problems(logged=False)
        found = results.read(root / name, judged, class_names=TEXTS, problems=problems)
        assert len(found.rows) == len(found.classes) == 3
        for index in range(3):
            rows, labels = found.rectangles(index), found.classes[index]
            assert rows.shape == (len(labels), 5)
            assert np.isfinite(rows).all()
            assert not len(labels) or 0 <= labels.min() <= labels.max() < max(
                1, len(found.class_names)
            )
        found.detections([(20, 30)] * 3)

    return read


def write_truth(root: Path) -> None:
    truth = make_truth(([[1, 2, 3, 4]], [1], [1], [1]), ([[1, 2, 3, 4]] * 2, [1], [1, 2], [1, 2]))
    for name, variables in mat_content(truth).items():
        packed = name in ("face", "hard")
        scipy.io.savemat(root / f"wider_{name}_val.mat", variables, do_compression=packed)


def read_truth(root: Path) -> None:
    truth = wider_face.read_ground_truth(root)
    assert len(truth.names) == len(truth.boxes)


def write_curves(root: Path) -> None:
    for name in wider_face.DIFFICULTIES:
        (root / f"wider_pr_info_x_{name}_val.txt").write_text("1 0\n0.5 0.5\n0.25 1\n")
    (root / "disc.txt").write_text("0.5 10 1\n0.25 5 2\n")
    (root / "sizes.json").write_text('{"a": [10, 20], "b": [3, 4]}')


def read_curves(root: Path) -> None:
    for curve in wider_face.read_curves(root).values():
        assert len(curve.precision) == len(curve.recall)
    assert np.isfinite(fddb.read_curve(root / "disc.txt")).all()
    assert all(min(size) > 0 for size in fddb.read_sizes(root / "sizes.json").values())


def write_config(root: Path) -> None:
    (root / "config.json").write_text(PRESETS["faces"].to_json())


def read_config(root: Path) -> None:
    found = config.load(root / "config.json")
    assert config.Config.from_json(found.to_json()) == found


def write_journal(root: Path) -> None:
    rows = [
        {"settings": {"tile": None}},
        {"name": "a.png", "stamp": [1, 2], "file": "a.png", "detections": [{"score": 1}]},
        {
            "name": "c.avi",
            "stamp": [1, 2],
            "file": "c.mp4",
            "frames": 1,
            "objects": 2,
            "fault": None,
        },
    ]
    (root / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_journal(root: Path) -> None:
    with journal.Journal(root / "journal.jsonl", {"tile": None}) as opened:
        for name in ("a.png", "c.avi"):
            row = opened.get(name)
            assert row is None or (root / row["file"]).parent == root
        opened.add({"name": "new", "file": "new.png"})
        assert opened.get("new") is not None


def read_discarded(root: Path) -> None:
    beside = root.parent / "beside"
    beside.touch()
    journal.discard(root / "journal.jsonl")
    assert beside.exists()


TARGETS = {
    **{form: Target(write_set(form), read_set(form), "set/**/*") for form in SETS},
    "results coco": Target(write_coco_results, read_results("found.json"), "found.json"),
    "results fddb": Target(write_fddb_results, read_results("found.txt"), "found.txt"),
    "results wider_face": Target(write_wider_results, read_results("wider"), "wider/**/*"),
    "truth": Target(write_truth, read_truth, "*.mat"),
    "curves": Target(write_curves, read_curves, "*"),
    "config": Target(write_config, read_config, "config.json"),
    "journal": Target(write_journal, read_journal, "journal.jsonl"),
    "discarded journal": Target(write_journal, read_discarded, "journal.jsonl"),
}


# Mutations


class Drawn(abc.ABC):
    """Choices of mutations."""

    def below(self, end: int) -> int:
        """A number from 0 to below `end`. Raises `IndexError` if there is none."""
        if end < 1:
            raise IndexError("expected something to choose from")
        return self._below(end)

    @abc.abstractmethod
    def _below(self, end: int) -> int: ...

    def one(self, items: Any) -> Any:
        """One of some items."""
        return items[self.below(len(items))]


class Shrinking(Drawn):
    """Choices that Hypothesis makes, and shrinks after a failure."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def _below(self, end: int) -> int:
        return self._data.draw(st.integers(0, end - 1))


class Rolled(Drawn):
    """Choices by chance, many times as fast."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def _below(self, end: int) -> int:
        return self._random.randrange(end)


def mutated(content: bytes, name: str, drawn: Drawn) -> bytes:
    """The content of a file after one to three mutations by its kind."""
    for _ in range(1 + drawn.below(3)):
        kinds = [of_bytes, *KINDS.get(Path(name).suffix, [of_lines])] * 2
        mutate = drawn.one(kinds[1:])  # the bytes in one of three or more
        with contextlib.suppress(*UNFIT):
            content = mutate(content, drawn)
    return content


def of_bytes(content: bytes, drawn: Drawn) -> bytes:
    """Bytes are replaced, cut off or repeated."""
    first = drawn.below(len(content) + 1)
    last = min(first + drawn.below(12), len(content))
    how = drawn.below(5)
    if how == 0:
        return content[:first]
    if how == 1:
        return content[:first] + content[first:last] * (2 + drawn.below(30)) + content[last:]
    if how == 2 and content:
        flipped = bytearray(content)
        flipped[min(first, len(content) - 1)] ^= 1 << drawn.below(8)
        return bytes(flipped)
    return content[:first] + drawn.one(BYTES) + content[last:]


def of_lines(content: bytes, drawn: Drawn) -> bytes:
    """Words and lines are replaced, left out, repeated or exchanged."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    at = drawn.below(len(lines))
    how = drawn.below(6)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines[at:at] = [lines[at]] * (1 + drawn.below(5))
    elif how == 2:
        other = drawn.below(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    else:
        words = re.split(r"([\s,:]+)", lines[at])
        place = drawn.below(len(words))
        words[place] = drawn.one(WORDS) if how > 3 else words[place] + drawn.one(WORDS)
        lines[at] = "".join(words)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def of_json(content: bytes, drawn: Drawn) -> bytes:
    """A value is replaced, left out, repeated, or there twice under one key."""
    tree = json.loads(content)
    *above, last = drawn.one(list(places(tree)))
    parent = tree
    for key in above:
        parent = parent[key]
    how = drawn.below(6)
    if how == 0:
        del parent[last]
    elif how == 1 and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif how == 2 and isinstance(parent, dict):
        parent[f"{last}@twice"] = drawn.one([None, 1, "x", [], parent[last]])
    else:
        parent[last] = "@raw@"
    text = json.dumps(tree).replace("@twice", "").replace('"@raw@"', drawn.one(RAW))
    return text.encode("utf-8", "surrogatepass")


def places(tree: Any) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a json."""
    pairs = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in pairs:
        yield (key,)
        yield from ((key, *rest) for rest in places(value))


def of_json_lines(content: bytes, drawn: Drawn) -> bytes:
    """A value in a line of json."""
    lines = content.split(b"\n")
    at = drawn.below(len(lines))
    lines[at] = of_json(lines[at], drawn)
    return b"\n".join(lines)


def of_xml(content: bytes, drawn: Drawn) -> bytes:
    """An element gets another text or name, is left out, repeated, or put into others."""
    tree = ElementTree.fromstring(content)
    parents = [(parent, child) for parent in tree.iter() for child in parent]
    parent, child = drawn.one(parents)
    how = drawn.below(6)
    if how == 0:
        parent.remove(child)
    elif how == 1:
        for _ in range(1 + drawn.below(3)):
            parent.append(copy.deepcopy(child))
    elif how == 2:
        child.tag = drawn.one(
            ["object", "bndbox", "name", "xmin", "size", "polygon", "robndbox", "x1"]
        )
    elif how == 3:
        depth = drawn.one([1, 3, 1000])
        text = ElementTree.tostring(child, encoding="unicode")
        whole = ElementTree.tostring(tree, encoding="unicode")
        tag = drawn.one(["object", "x", "part"])
        return whole.replace(text, f"<{tag}>" * depth + text + f"</{tag}>" * depth, 1).encode()
    else:
        child.text = drawn.one([word for word in WORDS if word.isprintable()])
    return ElementTree.tostring(tree)


def of_csv(content: bytes, drawn: Drawn) -> bytes:
    """A cell is replaced, left out or repeated."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = drawn.one([row for row in rows if row])
    at = drawn.below(len(row))
    how = drawn.below(4)
    if how == 0:
        del row[at]
    elif how == 1:
        row.insert(at, row[at])
    else:
        row[at] = drawn.one(WORDS)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", delimiter=drawn.one(",,,;\t")).writerows(rows)
    return text.getvalue().encode()


def of_record(content: bytes, drawn: Drawn) -> bytes:
    """A record of a shard is mutated, and gets the checksum that belongs to it."""
    records, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        records.append(content[at + 12 : at + 12 + length])
        at += length + 16
    index = drawn.below(len(records))
    how = drawn.below(5)
    if how == 0:
        del records[index]
    elif how == 1:
        records.insert(index, records[index])
    elif how == 2:  # only the part before the image
        records[index] = of_bytes(records[index][:400], drawn) + records[index][400:]
    elif how == 3:
        facts = re.search(rb'\{"name".*?\]\]\}', records[index])
        if facts:
            new = of_json(facts[0], drawn)[: len(facts[0])].ljust(len(facts[0]))
            records[index] = records[index].replace(facts[0], new)
    else:
        records[index] = records[index].replace(b"unitbox/annotation", b"unitbox/annotatiom")
        records[index] = of_bytes(records[index], drawn)
    lengths = [len(record) for record in records]
    if lengths and drawn.below(20) == 0:
        lengths[drawn.below(len(lengths))] = drawn.one([0, 1 << 31, 1 << 60, (1 << 64) - 1])
    parts = []
    for record, length in zip(records, lengths, strict=True):
        header = struct.pack("<Q", length)
        parts += [header, tfrecord._checksum(header), record, tfrecord._checksum(record)]
    return b"".join(parts)


KINDS: dict[str, list[Callable[[bytes, Drawn], bytes]]] = {
    ".json": [of_json],
    ".jsonl": [of_json_lines],
    ".xml": [of_xml],
    ".csv": [of_csv, of_lines],
    ".tfrecord": [of_record],
    ".mat": [of_bytes],
}


# Runs


class Outcome(NamedTuple):
    """How many examples were read, and how many were refused, by the kind of error."""

    read: int
    refused: Counter[str]


def example(target: Target, root: Path, drawn: Drawn) -> str | None:
    """Mutates one file of a written target, reads it, and restores it.

    Returns:
        The kind of error that refused it; None if it was read.

    Raises:
        AssertionError: what was read does not hold its promises, or a message does not name the file.
        Exception: anything else that is not meant for bad input.
    """
    paths = sorted(p for p in root.glob(target.files) if p.is_file() and p.suffix != ".png")
    path = drawn.one(paths)
    whole = path.read_bytes()
    content = mutated(whole, path.name, drawn)
    path.write_bytes(content)
    try:
        with _limited():
            target.read(root)
    except (ValueError, OSError) as error:
        if str(root) not in str(error):
            print(f"{path.name}: {content[:3000]!r}")
            raise AssertionError("the message names no file") from error
        return type(error).__name__
    except BaseException:
        print(f"{path.name}: {content[:3000]!r}")
        raise
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
    return None


def fuzz(name: str, root: Path, examples: int, seed: int) -> Outcome:
    """Reads a target after so many mutations, which `seed` decides. Raises the first error that is no refusal."""
    target = prepared(name, root)
    refused: Counter[str] = Counter()
    for number in range(examples):
        try:
            kind = example(target, root, Rolled(f"{seed} {number}"))
        except BaseException:
            print(f"{name}: example {number} of the seed {seed}", flush=True)
            raise
        if kind is not None:
            refused[kind] += 1
    return Outcome(examples - sum(refused.values()), refused)


def prepared(name: str, root: Path) -> Target:
    """A target, with its valid files written into `root`."""
    target = TARGETS[name]
    root.mkdir(parents=True, exist_ok=True)
    target.write(root)
    return target


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Raises `AssertionError` if the context takes longer than `SECONDS`, where the system has alarms."""

    def hangs(*_: object) -> None:
        raise AssertionError(f"hangs for more than {SECONDS} seconds")

    try:
        before = signal.signal(signal.SIGALRM, hangs)
    except (AttributeError, ValueError):  # another system, or another thread
        yield
        return
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Fuzzes some or all targets, and prints what happened."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"some of: {', '.join(TARGETS)}"
    )
    parser.add_argument("--examples", type=int, default=1000, help="of each target")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other examples")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    failed = 0
    for name in options.targets or TARGETS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = fuzz(name, Path(folder) / "root", options.examples, options.seed)
            except Exception:
                failed += 1
                traceback.print_exc()
                print(f"{name}: FAILED", flush=True)
                continue
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.refused.most_common())
        seconds = time.monotonic() - start
        print(
            f"{name}: {found.read} read, refused: {kinds or 'none'} in {seconds:.0f} s", flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
