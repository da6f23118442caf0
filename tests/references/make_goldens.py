"""Makes the golden files of this folder: what independent libraries say about one set of box pairs.

    python tests/references/make_goldens.py [--environments DIR] [--python python3.11]

It draws the pairs, makes one virtual environment for the TensorFlow libraries and one for the
PyTorch libraries (their requirements exclude each other and ours), runs `in_tensorflow.py` and
`in_torch.py` there, compares the libraries with each other, and writes, beside itself,

    box_losses.npz   the pairs, and per function its values [N] and gradients [R, 4]
    optimizers.json  trajectories of the reference optimizers
    versions.json    the calls, the versions, known deviations, and how far the libraries agree

Needs NumPy, a Python 3.11 for the environments, pip's package index and 2 to 8 GB of disk; minutes.
The tests only read what it wrote.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
COUNT = 10_000
GRADIENT_ROWS = 1_000  # and the edge cases: gradients are four times as large as values
LIMIT = 2000.0
STEP = 1 / 8  # coordinates are multiples: exact in float32, and they compress
SEED = 20160801

# The arguments of one `pip install` each. What is not named is resolved by pip, and listed in
# versions.json as it was.
REQUIREMENTS: dict[str, list[list[str]]] = {
    "tensorflow": [
        [
            "tensorflow-cpu==2.15.1",
            "tensorflow-addons==0.23.0",
            "keras-cv==0.9.0",
            "keras-core==0.1.7",
            "numpy==1.26.4",
            "protobuf==4.25.9",
            "tensorflow-metadata==1.16.1",
        ]
    ],
    "torch": [
        ["torch==2.13.0", "torchvision==0.28.0", "numpy==1.26.4"],
        # Only one file of each is loaded; their requirements (mmcv, OpenCV) are heavy.
        [
            "--no-deps",
            "mmdet==3.3.0",
            "mmyolo==0.6.0",
            "pai-easycv==0.11.7",
            "yolov6detect==0.4.1",
        ],
    ],
}

# Predicted and true box.
EDGES: dict[str, tuple[list[float], list[float]]] = {
    "identical": ([100, 200, 160, 290], [100, 200, 160, 290]),
    "nested, sharing one side": ([100, 220, 140, 270], [100, 200, 180, 300]),
    "nested, sharing a corner": ([100, 200, 150, 240], [100, 200, 180, 300]),
    "touching along a side": ([100, 200, 150, 300], [150, 210, 230, 280]),
    "touching at a corner": ([100, 200, 150, 300], [150, 300, 230, 340]),
    "disjoint, near": ([100, 200, 150, 300], [155, 210, 225, 290]),
    "disjoint, 2000 px apart": ([0, 0, 10, 10], [2010, 2010, 2030, 2025]),
    "very thin against wide": ([600, 100, 600.125, 1100], [50, 500, 1050, 700]),
    "tiny against large": ([300, 400, 300.125, 400.125], [100, 200, 1100, 1200]),
    "same centre, other aspect": ([100, 240, 300, 260], [180, 150, 220, 350]),
    "same size, shifted in x": ([100, 200, 160, 290], [120, 200, 180, 290]),
    "same size, shifted in y": ([100, 200, 160, 290], [100, 230, 160, 320]),
}

# Per loss, the key that the others are compared with comes first. `None`: everywhere; otherwise the
# rows where the deviation that the other is known for does not matter.
AGREEMENT: dict[str, dict[str, str | None]] = {
    "1 - IoU": {
        "tfa/giou_loss(iou)": None,
        "keras_cv/IoULoss(linear)": None,
        "mmdet/iou_loss(linear)": None,
    },
    "-ln IoU": {"mmdet/iou_loss(log)": None, "keras_cv/IoULoss(log)": "IoU > 0"},
    "GIoU": {
        "torchvision/generalized_box_iou_loss": None,
        "tfa/giou_loss(giou)": None,
        "keras_cv/GIoULoss": None,
        "mmdet/giou_loss": None,
        "mmyolo/bbox_overlaps(giou)": None,
    },
    "DIoU": {
        "torchvision/distance_box_iou_loss": None,
        "mmdet/diou_loss": None,
        "easycv/YOLOX_IOULoss(diou)": None,
    },
    "CIoU": {
        "torchvision/complete_box_iou_loss": None,
        "mmyolo/bbox_overlaps(ciou)": "loss < 2",
        "easycv/YOLOX_IOULoss(ciou)": "loss < 2",
        "mmdet/ciou_loss": "IoU > 1/2",
        "keras_cv/CIoULoss": "nowhere",
    },
    "SIoU": {
        "yolov6/IOUloss(siou)": None,
        "easycv/YOLOX_IOULoss(siou)": "neither within the other in x or y",
        "mmyolo/bbox_overlaps(siou)": "loss < 2",
        "mmdet/siou_loss": "loss < 2",
    },
}


def random_pairs(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true boxes `[count, 4]` xyxy: 1/2 overlap partly, 1/4 nested, 1/4 disjoint."""
    shares = {"overlapping": count // 2, "nested": count // 4}
    shares["disjoint"] = count - sum(shares.values())
    found = []
    for kind, wanted in shares.items():
        pairs = np.empty((0, 2, 4))
        while len(pairs) < wanted:
            candidates = _candidates(kind, wanted, random)
            good = _good(candidates) & (_kind(candidates) == kind)
            pairs = np.concatenate([pairs, candidates[good]])
        found.append(pairs[:wanted])
    pairs = random.permutation(np.concatenate(found))
    return pairs[:, 0], pairs[:, 1]


def _candidates(kind: str, count: int, random: np.random.Generator) -> np.ndarray:
    def sizes() -> np.ndarray:
        width = np.exp(random.uniform(0, np.log(1000), (count, 1)))
        height = width * np.exp(random.normal(0, 0.5, (count, 1)))
        return np.concatenate([width, height], axis=-1)

    size = sizes()
    centre = size / 2 + random.uniform(0, 1, (count, 2)) * (LIMIT - size)
    if kind == "overlapping":
        jitter = random.uniform(0.02, 1, (count, 1))  # from nearly right to nearly apart
        other = size * np.exp(random.normal(0, 0.3, (count, 2)) * jitter)
        shift = random.normal(0, 0.3, (count, 2)) * jitter * size
    elif kind == "nested":
        other = size * random.uniform(0.2, 0.95, (count, 2))
        shift = random.uniform(-0.5, 0.5, (count, 2)) * (size - other)
    else:
        other = sizes()
        shift = random.uniform(-2, 2, (count, 2)) * (size + other)

    def box(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=-1)
        return np.round(corners / STEP) * STEP

    pairs = np.stack([box(centre + shift, other), box(centre, size)], axis=1)
    swapped = random.uniform(size=count) < 0.5
    pairs[swapped] = pairs[swapped][:, ::-1]
    return pairs


def _good(pairs: np.ndarray) -> np.ndarray:
    """Within the limits, and away from the kinks of the losses, where gradients are a convention."""
    (low, high), (size, shift) = _corners(pairs), _size_and_shift(pairs)
    within = (low.min((1, 2)) >= 0) & (high.max((1, 2)) <= LIMIT)
    within &= (size.min((1, 2)) >= 1) & (size.max((1, 2)) <= 1000)
    differences = [low[:, 0] - low[:, 1], high[:, 0] - high[:, 1]]  # min and max
    differences += [low[:, 0] - high[:, 1], high[:, 0] - low[:, 1]]  # the intersection's max(0, .)
    differences += [size[:, 0] - size[:, 1], shift]  # SIoU's absolute values
    differences += [np.abs(shift[:, :1]) - np.abs(shift[:, 1:])]  # SIoU's choice of the angle
    return within & (np.concatenate(differences, axis=-1) != 0).all(axis=-1)


def _kind(pairs: np.ndarray) -> np.ndarray:
    low, high = _corners(pairs)
    inner_low, inner_high = low.max(axis=1), high.min(axis=1)
    overlapping = (inner_low < inner_high).all(axis=-1)
    inside = (inner_low[:, None] == low).all(-1) & (inner_high[:, None] == high).all(-1)
    return np.where(~overlapping, "disjoint", np.where(inside.any(-1), "nested", "overlapping"))


def _corners(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pairs[..., :2], pairs[..., 2:]


def _size_and_shift(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = _corners(pairs)
    return high - low, (low + high)[:, 0] - (low + high)[:, 1]


def optimizer_problem() -> dict[str, Any]:
    """Five weights, and a gradient A w - b whose curvatures lie between 0.2 and 4."""
    random = np.random.default_rng(SEED)
    basis = np.linalg.qr(random.normal(size=(5, 5)))[0]
    matrix = np.round(basis @ np.diag([0.2, 0.5, 1, 2, 4]) @ basis.T, 6)
    return {
        "A": ((matrix + matrix.T) / 2).tolist(),
        "b": np.round(random.normal(size=5), 6).tolist(),
        "start": np.round(random.normal(size=5) * 2, 6).tolist(),
        "steps": 10,
        "learning_rate": 0.05,
        "decay": 0.1,
        "momentum": 0.9,
    }


def environment(folder: Path, python: str, installs: list[list[str]]) -> Path:
    """The Python of the virtual environment `folder`, made unless it is there as asked for."""
    inside, stamp = folder / "bin" / "python", folder / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != installs:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        for arguments in installs:
            pip = [str(inside), "-m", "pip", "install", "--quiet", *arguments]
            subprocess.run(pip, check=True)
        stamp.write_text(json.dumps(installs))
    return inside


def agreement(goldens: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Largest differences over the random pairs, everywhere and where none is known."""
    iou = 1 - goldens["tfa/giou_loss(iou)"][:COUNT]
    pairs = np.stack([goldens["prediction"], goldens["truth"]], axis=1)[:COUNT]
    low, high = _corners(pairs)
    staggered = ((low[:, 0] < low[:, 1]) == (high[:, 0] < high[:, 1])).all(axis=-1)
    found = []
    for loss, keys in AGREEMENT.items():
        reference, *others = keys
        expected = goldens[reference][:COUNT]
        rows: dict[str | None, np.ndarray] = {
            None: np.ones(COUNT, bool),
            "IoU > 0": iou > 0,
            "IoU > 1/2": iou > 0.5,
            "loss < 2": expected < 2,
            "neither within the other in x or y": staggered,
            "nowhere": np.zeros(COUNT, bool),
        }
        for key in others:
            chosen = rows[keys[key]]
            entry: dict[str, Any] = {"loss": loss, "of": key, "from": reference}
            entry["where"] = keys[key] or "everywhere"
            difference = np.abs(goldens[key][:COUNT] - expected)
            entry["rows"] = int(chosen.sum())
            entry["largest_difference"] = _largest(difference[chosen])
            entry["largest_difference_everywhere"] = _largest(difference)
            if f"{key}/gradient" in goldens and f"{reference}/gradient" in goldens:
                ours, theirs = (goldens[f"{k}/gradient"][:GRADIENT_ROWS] for k in (key, reference))
                chosen = chosen[:GRADIENT_ROWS]
                entry["largest_gradient"] = _largest(np.abs(theirs[chosen]))
                entry["largest_gradient_difference"] = _largest(np.abs(ours - theirs)[chosen])
            found.append(entry)
    return found


def _largest(values: np.ndarray) -> float | None:
    return float(f"{values.max():.3g}") if values.size and np.isfinite(values).all() else None


def main() -> None:
    """Make the environments, run the libraries, write the golden files."""
    parser = argparse.ArgumentParser(description="Make the golden files of tests/references.")
    default = Path(tempfile.gettempdir()) / "unitbox_tf_references"
    parser.add_argument("--environments", type=Path, default=default)
    parser.add_argument("--python", default="python3.11", help="makes the environments")
    arguments = parser.parse_args()
    folder = arguments.environments
    folder.mkdir(parents=True, exist_ok=True)

    predictions, truths = random_pairs(COUNT, np.random.default_rng(SEED))
    edges = np.array(list(EDGES.values()), dtype=np.float64)
    prediction = np.concatenate([predictions, edges[:, 0]]).astype(np.float32)
    truth = np.concatenate([truths, edges[:, 1]]).astype(np.float32)
    rows = np.concatenate([np.arange(GRADIENT_ROWS), np.arange(COUNT, len(truth))])
    goldens: dict[str, np.ndarray] = {
        "prediction": prediction,
        "truth": truth,
        "edge_names": np.array(list(EDGES)),
        "gradient_rows": rows.astype(np.int32),
    }
    np.savez(folder / "pairs.npz", prediction=prediction, truth=truth, rows=rows)
    problem = optimizer_problem()
    (folder / "problem.json").write_text(json.dumps(problem))

    versions: dict[str, Any] = {"environments": {}, "calls": {}}
    trajectories: dict[str, Any] = {}
    for name, installs in REQUIREMENTS.items():
        python = environment(folder / name, arguments.python, installs)
        subprocess.run([str(python), str(HERE / f"in_{name}.py"), str(folder)], check=True)
        with np.load(folder / f"{name}.npz") as values:
            goldens.update(values)
        said = json.loads((folder / f"{name}.json").read_text())
        versions["environments"][name] = said["environment"]
        versions["calls"].update(said["calls"])
        trajectories.update(said["trajectories"])

    versions["agreement"] = agreement(goldens)
    np.savez_compressed(HERE / "box_losses.npz", **goldens)  # type: ignore[arg-type]
    _write(HERE / "optimizers.json", {"problem": problem, "trajectories": trajectories})
    _write(HERE / "versions.json", versions)
    for entry in versions["agreement"]:
        print(entry)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
