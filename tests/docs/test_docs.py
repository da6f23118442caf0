"""Every code block of README.md, docs/ and the model cards is run, in a folder that has what it names.

A block is Python, commands (indented, or fenced as bash or console), or fenced as text; anything else
fails. The Python blocks of a page share their names. Commands are taken apart by the shell itself: bash
runs the block with stand-ins for the programs, which note how they were called; what they noted is
then run in this process, since TensorFlow takes seconds to start. What is printed is not compared.

What a block needs to be small or cannot do here stands in `SMALLER`, `SLOW` and `CHECKED`.
"""

import argparse
import ast
import configparser
import dataclasses
import gzip
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import cv2
import numpy as np
import pytest
from markdown_it import MarkdownIt

from tests.helpers.wider_face import make_truth, mat_content, write_mats
from unitbox_tf import cli, datasets, registry, runs
from unitbox_tf import config as configs
from unitbox_tf.cli import fit, parser
from unitbox_tf.datasets import synthetic
from unitbox_tf.evaluation import fddb, wider_face
from unitbox_tf.records import Annotation
from unitbox_tf.serve import open_inference, tensorflow_rest
from unitbox_tf.serve.question import Model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES += sorted(ROOT.glob("saved_models/**/README.md"))

SERVER = "tensorflow_model_server"

# The beginning of a command, what is appended to it, and why. Of an option given twice, the last counts.
SMALLER = [
    (
        "unitbox fit",
        "--epochs 1 --steps-per-epoch 1 --batch-size 2 --image-size 64 --max-side 64 --validation-images 1",
        "a step instead of hours",
    ),
    ("unitbox fit", "--weights None", "the ImageNet weights are 59 MB away"),
    ("unitbox fit", "--precision float32", "compiles faster than mixed precision"),
    (
        "python -m training.benchmarks",
        "--rounds 1",
        "one round is as good as thirty for seeing that it runs",
    ),
    (
        "python -m training.benchmarks shards",
        "--count 2 --kilobytes 1",
        "300 MB of random bytes otherwise",
    ),
    (
        "python -m training.benchmarks backbones",
        "light --counts",
        "makes and converts fourteen networks, minutes",
    ),
]

# A page, a text that one of its blocks has, and why it is run only by `pytest -m slow`. By default it is
# checked: Python compiles; of commands, programs, options and files are there.
SLOW = [
    ("README.md", "unitbox fit faces", "trains"),
    ("README.md", "faces.onnx", "converts, half a minute"),
    ("README.md", 'PRESETS["smoke"]', "trains"),
    ("README.md", "faces.keras", "opens a model, stores it, and opens it twice"),
    ("docs/performance.md", "--stored dataset", "measures four pipelines"),
    ("docs/time.md", "benchmarks normalisation", "trains four networks"),
    ("docs/data.md", "tfrecord:shards#train", "trains"),
    ("docs/export.md", "detector.onnx       #", "converts, a minute"),
    ("docs/export.md", "--format litert-int8", "converts, half a minute"),
    ("docs/export.md", "again.onnx", "converts, a minute"),
    ("docs/serving.md", "export faces served", "traces the graph of three scales, twice"),
    ("docs/serving.md", "benchmarks serving", "starts TensorFlow twice"),
    ("docs/evaluation.md", "--validation-protocol fddb", "trains"),
    ("docs/faces.md", "--run short", "trains"),
    ("docs/own_data.md", "--run cells", "trains"),
    ("docs/own_data.md", "--run masks", "trains"),
    ("docs/faces.md", "wider_face:wider/val_416", "another evaluation of a model is run"),
    ("docs/time.md", "--run timing", "trains"),
    ("docs/troubleshooting.md", "--run two_classes", "trains"),
    ("docs/training.md", "fit --config", "trains"),
    ("docs/training.md", "from_generator", "trains three times"),
    ("docs/training.md", "--init faces_light", "trains"),
    ("docs/training.md", "teacher = ", "detects with VGG-16; a test of training reads its table"),
    ("saved_models/faces/README.md", "--init faces", "trains"),
    ("saved_models/faces/README.md", "evaluate faces", "two decoders at three scales, twice"),
    ("saved_models/faces_light/README.md", "--init faces_light", "trains"),
    ("saved_models/faces_light/README.md", "evaluate faces_light", "two decoders, three times"),
]

# The same, and why it is never run, but checked.
CHECKED = [
    (
        "docs/evaluation.md",
        "training.rivals.sizes",
        "detects in a thousand photos; `test_sizes` does in few",
    ),
    ("README.md", "make fit", "installs, trains, and runs these tests"),
    ("README.md", "pip install .  ", "installs from the network"),
    ("README.md", "-m venv", "installs from the network"),
    ("README.md", "requirements-tensorflow-cpu", "installs from the network"),
    ("README.md", "fit paper", "two backbones and an image of 640 px: needs a GPU"),
    ("README.md", "figure4 letter", "trains eight runs"),
    ("docs/batch.md", "pip install", "installs from the network"),
    ("docs/batch.md", "a_folder/ --runner", "needs Apache Beam, in an environment of its own"),
    ("docs/batch.md", "@photos.txt --runner", "needs Apache Beam, in an environment of its own"),
    ("docs/batch.md", "benchmarks batch", "needs Apache Beam, in an environment of its own"),
    ("docs/demo.md", "unitbox demo  ", "a server"),
    ("docs/demo.md", "--public-host", "a server"),
    ("docs/export.md", "benchmarks parity", "five exports, each run on a hundred images"),
    ("docs/export.md", "benchmarks precision", "measures for minutes"),
    ("docs/export.md", "--yunet YUNET --processors", "needs another detector and its exports"),
    ("docs/large_pictures.md", "pytest", "one of the slow tests itself"),
    ("docs/serving.md", SERVER, "another program, and a server"),
    ("docs/serving.md", "unitbox serve detector", "installs from the network, and a server"),
    ("docs/serving.md", "/healthz", "asks a server"),
    (
        "docs/serving.md",
        'v1/models/faces:predict"\n',
        "asks a server; a test of the server runs it",
    ),
    ("docs/serving.md", 'v2/models/faces/infer"\n', "asks a server; a test of the server runs it"),
    ("docs/serving.md", "docker compose", "another program"),
    ("docs/serving.md", "benchmarks load", "a server, and two other processes"),
    ("docs/evaluation.md", "training.rivals wider", "installs other detectors, 3 GB"),
    ("docs/own_data.md", "evaluate saved_models/cells", "needs the trained run"),
    ("docs/own_data.md", "detect saved_models/cells", "needs the trained run"),
    ("docs/own_data.md", "export saved_models/cells", "needs the trained run"),
    ("docs/own_data.md", "rivals.on_own_data", "trains, with libraries of its own"),
    ("docs/losses.md", "for reduction in", "trains nine runs"),
    ("docs/losses.md", "benchmarks losses", "measures in many processes, minutes"),
    ("docs/results.md", "figure4 letter", "trains eight runs"),
    ("docs/results.md", "figure4 search", "trains eighteen runs"),
    ("docs/results.md", "training.paper scales", "trains some forty runs"),
    ("docs/results.md", "figure5 train", "trains two runs"),
    ("docs/results.md", "figure5 measure --data", "60 images at six sizes with VGG-16"),
    ("docs/results.md", "runs/ablation-base-0", "needs trained runs"),
    ("docs/results.md", "fit paper", "two backbones and an image of 640 px: needs a GPU"),
    ("docs/results.md", "ablations --seeds", "trains thirty runs"),
    ("docs/performance.md", "benchmarks detection", "measures for minutes"),
    ("docs/performance.md", "benchmarks postprocess", "measures for minutes"),
    ("docs/performance.md", "benchmarks startup", "measures for minutes"),
    ("docs/performance.md", "benchmarks scaling", "measures for minutes"),
    ("docs/performance.md", "benchmarks train --networks vgg16 light", "measures for minutes"),
    ("docs/performance.md", "--networks vgg16 --precisions float32", "measures for minutes"),
    ("docs/performance.md", "benchmarks input --json", "measures for minutes"),
    ("docs/performance.md", "benchmarks input --stages", "measures for minutes"),
    ("docs/performance.md", "make gpu", "needs a GPU"),
    ("docs/training.md", "tensorboard", "a server"),
    ("docs/training.md", "fit --resume", "needs a run with a checkpoint"),
    ("docs/training.md", "ablations  ", "trains some fifty runs"),
    ("docs/losses.md", "training.choices", "trains four runs"),
    ("docs/training.md", "fit paper", "two backbones and an image of 640 px: needs a GPU"),
    (
        "saved_models/faces/README.md",
        "training.publish saved_models/vgg",
        "trains, and overwrites what is published",
    ),
    (
        "saved_models/faces_light/README.md",
        "training.publish saved_models/second",
        "trains, and overwrites what is published",
    ),
    ("saved_models/faces_light/README.md", "training.rivals wider", "installs other detectors"),
    ("saved_models/faces_light/README.md", "rivals.sizes", "composes 1,200 photos"),
    ("docs/sizes.md", "rivals.sizes", "composes 1,200 photos"),
]


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code, and the line of the page on which it begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def commands(self):
        return self.language in ("bash", "console")


def blocks_of(page, text):
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            yield Block(page, token.map[0] + 1, token.info.strip(), token.content)
        elif token.type == "code_block":
            yield Block(page, token.map[0] + 1, "bash", token.content)
        elif token.type == "html_block" and "<pre" in token.content:
            yield Block(page, token.map[0] + 1, "<pre>", token.content)


BLOCKS = [
    block
    for page in PAGES
    for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))
    if block.language != "text"
]


def is_in(block, table):
    return any(block.page == page and text in block.text for page, text, _ in table)


# What blocks name -------------------------------------------------------------------------------


def convert(source, destination, *options):
    assert cli.main(["convert", source, destination, *options]) == 0


def jpeg(number):
    picture = cv2.imdecode(np.frombuffer(synthetic.draw(number).image, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(jpeg(number))


def make_animals(folder, source):
    """A COCO set in which every other object is a dog, and the rest are cats."""
    found = [
        dataclasses.replace(each, classes=np.arange(len(each.boxes)) % 2)
        for each in datasets.load(source)
    ]
    registry.DATASETS["coco"].write(found, folder, "", ("cat", "dog"))


def make_fddb(folder):
    """Folds 1 to 8, detections of all faces, and two published curves beside."""
    convert("synthetic:#0-16", f"fddb:{folder / 'DATA/fddb'}#1-8")
    truth = datasets.load("fddb:fddb", ("face",), data=folder / "DATA")
    rows = {a.name: np.column_stack([a.boxes, a.boxes[:, :1]]) for a in truth}
    for found in rows.values():
        found[:, 2:4] -= found[:, :2]
    sizes = {a.name: [synthetic.SIZE, synthetic.SIZE] for a in truth}
    parity = folder / "DATA/fddb/eval_parity"
    parity.mkdir()
    for path in (folder / "s3fd.txt", parity / "fddb_s3fd_result.txt"):
        fddb.write_detections(rows, path)
    for path in (folder / "sizes.json", folder / "DATA/fddb/image_dims_all2845.json"):
        path.write_text(json.dumps(sizes))
    faces = {a.name: a.ellipses for a in truth}
    curves = fddb.evaluate(rows, faces, fddb.read_sizes(folder / "sizes.json"))
    (folder / "CURVES").mkdir()
    for name in ("UnitBox", "MTCNN"):
        fddb.save_curves(curves, folder / f"CURVES/{name}-")


def make_wider(folder):
    """Lists and images, the official .mat files, results of two detectors and a published curve."""
    wider = folder / "DATA/wider"
    faces = [
        # Official boxes are whole numbers.
        Annotation(f"0--Parade/{n}.jpg", jpeg(n), np.rint(synthetic.draw(n).boxes))
        for n in range(20, 24)
    ]
    write = registry.DATASETS["wider_face"].write
    for part in (wider, wider / "annotations", wider / "val_416"):
        write(faces, part, "val", ("face",))
    write(faces, folder / "train", "train", ("face",))
    shutil.copytree(folder / "train", wider, dirs_exist_ok=True)
    shutil.copytree(wider, folder / "DATA/wider_face")
    found = datasets.load("wider_face:wider", ("face",), data=folder / "DATA")
    everyone = [range(len(a.boxes)) for a in found]
    boxes = [np.column_stack([a.boxes[:, :2], a.boxes[:, 2:] - a.boxes[:, :2]]) for a in found]
    images = [(b, e, e, e) for b, e in zip(boxes, everyone, strict=True)]
    truth = make_truth(*images, names=tuple(a.name for a in found))
    for place in (wider / "wider_face_split", folder / "ground_truth", folder / "GROUND_TRUTH"):
        place.mkdir(exist_ok=True)
        write_mats(mat_content(truth), place)
    rows = {
        a.name: np.column_stack([b, np.linspace(0, 1, len(b))])
        for a, b in zip(found, boxes, strict=True)
    }
    wider_face.write_detections(rows, folder / "results")
    wider_face.write_detections(rows, folder / "RESULTS/retinaface")
    lines = [f"# {name.removesuffix('.jpg')} 1\n5 5 9 9 0.5\n" for name in rows]
    with gzip.open(folder / "detections_yolov7face.txt.gz", "wt") as file:
        file.writelines(lines)
    wider_face.save_curves(wider_face.evaluate(rows, truth), folder / "curves/S3FD", "S3FD")


def make_splits(folder, *names):
    """Three splits with objects of the classes `names`, in one folder of COCO json files."""
    for number, split in enumerate(("train", "val", "test")):
        images = []
        for each in range(3 * number, 3 * number + 3):
            drawn = synthetic.draw(each)
            classes = (np.arange(len(drawn.boxes)) + each) % len(names)
            images.append(Annotation(f"{each}.jpg", jpeg(each), drawn.boxes, classes=classes))
        registry.DATASETS["coco"].write(images, folder / split, split, names)
        shutil.copytree(folder / split, folder, dirs_exist_ok=True)
        shutil.rmtree(folder / split)


def make_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for shade in (0, 120, 250):
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()


@pytest.fixture(scope="module", autouse=True)
def only_our_entries():
    """The registries are afterwards as before: pages add to them."""
    known = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    before = [list(each) for each in known]
    yield
    for each, names in zip(known, before, strict=True):
        for name in [name for name in each if name not in names]:
            each.unregister(name)


@pytest.fixture(scope="module")
def named(untrained_run, tmp_path_factory):
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("named")
    pictures(folder, "photo.jpg", "crowd.jpg", "poster.jpg", "portrait.png")
    pictures(folder / "a_folder", "1.jpg", "2.jpg")
    for split, numbers in (("train", "0-4"), ("val", "4-8")):
        make_animals(folder / "my_data" / split, f"synthetic:#{numbers}")
    pictures(folder / "my_data/no_animals", "1.jpg")
    make_splits(folder / "bccd", "RBC", "WBC", "Platelets")
    make_splits(folder / "masks", "with_mask", "without_mask", "mask_weared_incorrect")
    convert("synthetic:#0-4", f"voc:{folder / 'my_data/masks'}#train")
    (folder / "DATA").mkdir()
    for name in ("VGG16", "YUNET", "light.onnx"):
        (folder / name).touch()
    make_wider(folder)
    for name, numbers in (
        ("other/multiface", "0-4"),
        ("other/wider_train", "0-4"),
        ("other/facemask724", "0-4"),
        ("wider/val_640", "900-904"),  # no image of the training sets
    ):
        source = f"synthetic:#{numbers}"
        convert(source, f"coco:{folder / 'DATA' / name}", "--rename", "object=face")
    [file] = (folder / "DATA/other/facemask724").glob("*.json")
    file.rename(file.with_name("faces.json"))
    pictures(folder / "DATA/other/nonface_scenes", "1.jpg", "2.jpg")
    make_fddb(folder)
    pictures(folder / "holiday", "1.jpg")

    make_video(folder / "clip.mp4")
    for name in ("detector", "served/faces/1"):
        shutil.copytree(untrained_run / "saved_model", folder / name, copy_function=os.link)
    for name in ("RUN", "short"):
        shutil.copytree(untrained_run, folder / "saved_models" / name, copy_function=os.link)
    (folder / "RUN").symlink_to("saved_models/RUN")
    # For commands that are checked alone.
    for name in ("runs/ablation-base-0", "runs/ablation-unshared-0", "saved_models/cells"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture
def here(named, tmp_path, monkeypatch):
    """A copy of `named`, as the current folder."""

    def copy(source, destination):
        large = os.path.getsize(source) > 1e6  # weights, which nothing writes in place
        return (os.link if large else shutil.copy2)(source, destination)

    folder = tmp_path / "here"
    shutil.copytree(named, folder, copy_function=copy, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


# Commands ---------------------------------------------------------------------------------------

STAND_IN = """#!{bash}
printf '%s\\0' "${{0##*/}}" "$@" $'\\n' >> "$CALLS"
"""
PROGRAMS = ("unitbox", "python", "python3", "pip", "make", "pytest", "tensorboard", SERVER)
PROGRAMS += ("curl", "docker", "base64")


def calls(block, folder):
    """The programs that a block calls, each with its arguments."""
    text = block.text
    if block.language == "console":  # what is no prompt was printed
        lines = text.splitlines(keepends=True)
        text = "".join(line[2:] for line in lines if line.startswith(("$ ", "> ")))
    bash, noted = shutil.which("bash"), folder / "calls"
    for place in (folder / "programs", folder / "here/.venv/bin"):
        place.mkdir(parents=True)
        for name in PROGRAMS:
            (place / name).write_text(STAND_IN.format(bash=bash))
            (place / name).chmod(0o755)
    done = subprocess.run(
        [bash, "-euo", "pipefail", "-c", text],
        cwd=folder / "here",
        env={"PATH": str(folder / "programs"), "CALLS": str(noted)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"expected a call of {PROGRAMS}. Received: {done.stderr}"
    assert noted.is_file(), "expected commands. Received: none; fence other text as ```text"
    return [
        smaller(call.strip("\0").split("\0")) for call in noted.read_text().split("\n\0") if call
    ]


def smaller(call):
    """The call as `PROGRAM ARGUMENTS`, with what `SMALLER` appends to it."""
    call = ["python" if call[0] == "python3" else call[0], *call[1:]]
    if call[:2] == ["python", "training/fit.py"]:
        call = ["unitbox", "fit", *call[2:]]
    for beginning, options, _ in SMALLER:
        if call[: beginning.count(" ") + 1] == beginning.split():
            call = call + options.split()
    return call


def run(call):
    """Runs a command; what it writes stays in the current folder."""
    assert call[0] == "unitbox" or is_script(call), f"not run here; say why in CHECKED: {call}"
    try:
        status = enter(call)
    except SystemExit as error:
        status = error.code
    assert not status, (call, status)


def enter(call):
    return cli.main(call[1:]) if call[0] == "unitbox" else run_script(call[2:])


def is_script(call):
    """True if it is `python -m training.NAME`."""
    return call[:2] == ["python", "-m"] and call[2].startswith("training.")


def run_script(call):
    before, sys.argv = sys.argv, call
    try:
        runpy.run_module(call[0], run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before


class ParsedError(Exception):
    """Carries the options of a command from the moment at which they are parsed."""


def options_of(call, monkeypatch):
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, arguments=None, namespace=None):
        raise ParsedError(original(self, arguments, namespace))

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        try:
            enter(call)
        except ParsedError as parsed:
            return vars(parsed.args[0])
    return pytest.fail(f"no options were parsed: {call}")


def check(call, made, monkeypatch):
    """Asserts that program, options and files of a call exist; adds what it would write to `made`."""
    if call[:2] == ["unitbox", "fit"]:
        options = parser.parse(call[1:])
        _, config = fit.configuration(options)
        for source in (*config.data.train_sources, *config.data.validation_sources):
            assert_source(source, config.data.data, made)
        assert_detector(config.train.init, made)
        for path in (options.config, options.resume):
            assert_exists(path, made)
        made.append(Path(config.train.output) / (config.train.run or ""))
    elif call[0] == "unitbox" or is_script(call):
        check_options(options_of(call, monkeypatch), made)
    elif call[0] == "make":
        rules = (ROOT / "Makefile").read_text("utf-8")
        for target in call[1:]:
            assert re.search(rf"^{target}:", rules, re.MULTILINE), f"no rule for {target}"
    elif call[0] == "pip":
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        for extras in re.findall(r"\[(.*)\]", " ".join(call)):
            assert set(extras.split(",")) <= set(setup["options.extras_require"])
    elif call[:2] == ["tensorboard", "--logdir"]:
        assert_exists(call[2], made)
    elif call[0] == "pytest":
        assert all((ROOT / path).is_file() for path in call if path.startswith("tests/"))
    elif call[0] == "curl":
        check_request(call)
    elif call[:2] == ["docker", "compose"]:
        assert (ROOT / call[call.index("-f") + 1]).is_file()
    elif call[0] == "base64":
        assert_exists(call[-1], made)
    elif call[0] == SERVER:
        options = dict(option.removeprefix("--").split("=") for option in call[1:])
        assert_exists(options["model_base_path"], made)
    else:
        assert call[:3] == ["python", "-m", "venv"], f"expected a known program. Received: {call}"


def check_request(call):
    """Asserts that `unitbox serve` has the path of a call of curl, and the file of its body."""
    address = urllib.parse.urlsplit(call[-1])
    assert address.netloc == "localhost:8501"
    body = call[call.index("--data") + 1] if "--data" in call else None
    assert body is None or body.startswith("@")
    if address.path in ("/healthz", "/metrics"):
        return
    module = tensorflow_rest if address.path.startswith(tensorflow_rest.PREFIX) else open_inference
    model = Model("faces", configs.DecodeConfig(), (), 1, "")
    module.route(model, "POST" if body else "GET", address.path)


WRITTEN = ("output", "json", "folder", "environments")


def check_options(options, made):
    data = options.get("data") or "."
    assert_exists(data, made)
    if options.get("weights") != "imagenet":
        assert_exists(options.get("weights"), made)
    for source in [options.get("source"), *(options.get("sources") or [])]:
        if source is not None:
            assert_source(source, data, made)
    for each in options.get("runs") or []:  # NAME=RUN
        assert_detector(each.partition("=")[2], made)
    for each in options.get("ours") or []:  # RUN:FIELD=VALUE
        assert_detector(each.partition(":")[0], made)
    for name in ("model", "detector"):
        assert_detector(options.get(name), made)
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and name not in WRITTEN:
                assert_exists(path, made)
    made += [Path(options[name]) for name in WRITTEN if options.get(name)]
    if options.get("destination"):  # FORMAT:PATH#SPLIT
        made.append(Path(options["destination"].partition(":")[2].partition("#")[0]))


def assert_source(text, data, made):
    path = Path(data) / text.partition(":")[2].partition("#")[0]
    if not any(path.is_relative_to(folder) for folder in made):
        datasets.open(text, data)


def assert_detector(name, made):
    assert_exists(None if name is None else runs.find(name), made)


def assert_exists(path, made):
    if path is not None:
        path = Path(path)
        assert path.exists() or any(path.is_relative_to(folder) for folder in made), path


# Tests ------------------------------------------------------------------------------------------


def cases():
    found = []
    for block in BLOCKS:
        if is_in(block, SLOW):
            found.append(pytest.param(block, run, id=f"{block}-slow", marks=pytest.mark.slow))
        how = check if is_in(block, SLOW + CHECKED) else run
        found.append(pytest.param(block, how, id=str(block)))
    return found


NAMES = {}  # of each page: what its Python blocks have defined
DONE = set()


def compiled(block):
    # Empty lines before it, so that errors name the page's line; its first one is the fence.
    return compile("\n" * block.line + block.text, ROOT / block.page, "exec")


def execute(block):
    """Runs a Python block, after those before it on its page, where they have not run yet."""
    for each in BLOCKS:
        if (each.page, each.language) == (block.page, "python") and each.line < block.line:
            if not (each in DONE or is_in(each, CHECKED)):
                execute(each)
    DONE.add(block)
    exec(compiled(block), NAMES.setdefault(block.page, {}))


def carry_out(block, how, folder, monkeypatch):
    if block.language == "python":
        execute(block) if how is run else compiled(block)
    elif block.commands:
        made, called = [], calls(block, folder)
        for call in called:
            if "--run" in call:  # other blocks name the runs that this one makes
                run_name = call[call.index("--run") + 1]
                shutil.rmtree(folder / "here/saved_models" / run_name, ignore_errors=True)
        for call in called:
            run(call) if how is run else check(call, made, monkeypatch)
    else:
        pytest.fail(
            f"{block}: expected python, bash, console or text. Received: {block.language!r}"
        )


@pytest.mark.parametrize(("block", "how"), cases())
def test_block(block, how, here, monkeypatch):
    carry_out(block, how, here.parent, monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        "```\nunitbox --help\n```",
        "```yaml\nunitbox: 1\n```",
        "<pre>\nunitbox\n</pre>",
        "```python\nfind(\n```",
        "    unitbos detect faces photo.jpg --output found",
        "    unitbox evaluate gone.json coco:val --data my_data",
        "    unitbox detect faces photo.jpg --outptu found",
        "    for",
        "    # nothing",
        "    make fit",
        "1. In a list:\n\n       unitbox detect gone photo.jpg --output found",
    ],
)
def test_what_is_wrong_or_unknown_fails(text, here, monkeypatch):
    [block] = blocks_of("x.md", text)
    with pytest.raises((AssertionError, SyntaxError, pytest.fail.Exception)):
        carry_out(block, run, here.parent, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "unitbos fit",
        "unitbox fit faces --epoch 3",
        "unitbox fit faces --data DATA --train-sources coco:gone",
        "unitbox evaluate gone fddb:fddb --data DATA",
        "unitbox evaluate faces fddb:gone --data DATA",
        "python -m training.gone",
        "python -m training.paper figure4 all --data DATA --weights imagenet --output runs",
        "python -m training.paper figure6 --runs x=gone --data DATA --output runs",
        "make coffee",
        "pip install '.[gone]'",
        "tensorboard --logdir gone",
    ],
)
def test_what_is_only_checked_can_be_wrong(command, here, monkeypatch):
    block = Block("x.md", 1, "bash", f"{command}\n")
    errors = (AssertionError, ValueError, OSError, ImportError, SystemExit, pytest.fail.Exception)
    with pytest.raises(errors):
        carry_out(block, check, here.parent, monkeypatch)


def test_the_tables_name_one_block_each():
    for page, text, _ in SLOW + CHECKED:
        found = [str(b) for b in BLOCKS if b.page == page and text in b.text]
        assert len(found) == 1, f"{page}: expected one block with {text!r}. Received: {found}"
    every = "\n".join(block.text for block in BLOCKS)
    for beginning, *_ in SMALLER:
        assert beginning in every, f"no block has {beginning!r}"


def anchors(text):
    """Names that headings get on the web: lower case, without punctuation, with hyphens for spaces."""
    tokens = MarkdownIt().parse(text)
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            yield re.sub(r"[^\w\- ]", "", token.content.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for token in MarkdownIt().enable("table").parse(page.read_text("utf-8")):
        for child in token.children or []:
            link = child.attrGet("href") or child.attrGet("src") or ""
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if link and "://" not in link:
                assert target.exists(), link
            if anchor:
                assert anchor in anchors(target.read_text("utf-8")), link


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text("utf-8")
    for page in PAGES[1:]:
        name = os.path.relpath(page, ROOT / "docs")
        assert name == "README.md" or f"]({name})" in index, name


def messages():
    """The texts in the code, each in one piece, with `\\0` for what is filled in; docstrings are left out."""
    for path in (ROOT / "unitbox_tf").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                values = (getattr(part, "value", None) for part in node.values)
                yield "".join(each if isinstance(each, str) else "\0" for each in values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node not in prose:
                    yield node.value
    yield (ROOT / "Makefile").read_text("utf-8")


# Other texts with spaces between backticks: commands, options and code.
NO_MESSAGE = re.compile(r"(unitbox|pip|python|pytest|make|--[a-z0-9-]+)\b|image\[")


def quoted_messages(page):
    """The parts of messages that a page quotes, without the blocks of code."""
    for token in MarkdownIt().enable("table").parse(page):
        for child in token.children or []:
            if child.type == "code_inline" and " " in child.content:
                if not NO_MESSAGE.match(child.content):
                    yield child.content


def test_messages_in_troubleshooting_are_in_the_code():
    """The page quotes parts of messages in which nothing is filled in."""
    known = list(messages())
    quoted = list(quoted_messages((ROOT / "docs/troubleshooting.md").read_text("utf-8")))
    assert len(quoted) > 30
    unknown = [text for text in quoted if not any(text in each for each in known)]
    assert not unknown, f"expected texts of messages in the code. Received: {unknown}"


def test_a_message_that_is_not_in_the_code_is_seen():
    known = list(messages())
    [text] = quoted_messages("| `Expected the decoder 'peaks'` of `unitbox fit x` |")
    assert not any(text in each for each in known)
    assert not any("Opens a detector, whatever form" in each for each in known)  # a docstring
    assert any("Expected a decoder that runs in" in each for each in known)
