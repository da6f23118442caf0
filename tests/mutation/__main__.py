"""Mutation testing: how many small faults in a module do its tests notice?

`python -m tests.mutation all` judges the modules whose numbers others rely on. `python -m tests.mutation boxes losses
--sample 100` judges a random sample of the mutants of two of them. The least share of killed mutants is 85 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
import time
from pathlib import Path

LEAST = 0.85
MODULES = {
    "evaluation/matching": ["tests/evaluation/test_matching.py"],
    "evaluation/fddb": ["tests/evaluation/test_fddb.py"],
    "evaluation/wider_face": ["tests/evaluation/test_wider_face.py"],
    "evaluation/coco": ["tests/evaluation/test_coco.py"],
    "evaluation/protocols": ["tests/evaluation/test_protocols.py"],
    "evaluation/by_class": ["tests/evaluation/test_by_class.py"],
    # From here on, tests import TensorFlow, and forks take longer.
    "boxes": ["tests/test_boxes.py"],
    "train/targets": ["tests/train/test_targets.py"],
    "losses": ["tests/test_losses.py"],
    "detect/decoders": ["tests/detect/test_decoders.py"],
    "formats/numpy_decoder": ["tests/formats/test_numpy_decoder.py"],
}


def main() -> int:
    """Returns 0 if each module reaches the least share."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="+", choices=["all", *MODULES], metavar="MODULE")
    parser.add_argument("--sample", type=int, help="number of mutants of each module; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--again", action="store_true", help="only those that survived last time")
    parser.add_argument("--output", type=Path, default=Path("build/mutation"), help="for results")
    args = parser.parse_args()
    from tests.mutation import run

    run.preload()
    args.output.mkdir(parents=True, exist_ok=True)
    results = [_judge(run, name, args) for name in MODULES if {name, "all"} & {*args.modules}]
    print(_table(results))
    return 0 if all(r["killed"] >= LEAST * r["judged"] for r in results) else 1


def _judge(run, name, args):
    """Judges mutants of one module. The file of its results is complete after each of them."""
    began, path = time.monotonic(), args.output / f"{name.replace('/', '.')}.json"
    if not name.startswith("evaluation/"):
        run.preload(("tensorflow", "keras"))
    judge = run.Judge(name, MODULES[name])
    source = hashlib.sha256(judge.mutants.source.encode()).hexdigest()
    result = {"module": name, "source": source, "mutants": len(judge.mutants.all)}
    result |= {"judged": 0, "killed": 0, "by time": 0, "invalid": 0, "minutes": 0, "survivors": []}
    if args.again:
        before = json.loads(path.read_text())
        if before["source"] != source:
            raise ValueError(f"{path}: {name} has changed since: judge it anew, without --again")
        chosen = [judge.mutants.all[survivor["number"]] for survivor in before["survivors"]]
        result |= {n: before[n] for n in ("killed", "by time", "invalid")} | {
            "judged": before["killed"]
        }
    else:
        chosen = _sample(judge.mutants.all, args)
    print(f"{name}: {len(chosen)} of {len(judge.mutants.all)} mutants, {len(judge.seconds)} tests")
    for mutant in chosen:
        verdict = judge.verdict(mutant)
        result["invalid"] += verdict == "invalid"
        result["judged"] += verdict != "invalid"
        result["killed"] += verdict in ("killed", "timeout")
        result["by time"] += verdict == "timeout"
        if verdict == "survived":
            change = judge.mutants.changed_lines(mutant)
            fault = {"number": mutant.number, "line": mutant.lines[0], "operator": mutant.operator}
            result["survivors"].append(fault | {"change": change})
            print(f"{name}:{mutant.lines[0]}: {mutant.operator} survived\n{change}", flush=True)
        result["minutes"] = round((time.monotonic() - began) / 60, 1)
        path.write_text(json.dumps(result, indent=1))
    return result


def _sample(mutants, args):
    if args.sample is None or args.sample >= len(mutants):
        return mutants
    drawn = random.Random(args.seed).sample(mutants, args.sample)
    return sorted(drawn, key=lambda mutant: mutant.number)


def _table(results) -> str:
    rows = [
        "| module | mutants | judged | killed | share | 95 % interval | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        low, high = _interval(r["killed"], r["judged"])
        whole = r["judged"] + r["invalid"] == r["mutants"]
        between = "all judged" if whole else f"{low:.1%} to {high:.1%}"
        share = f"{r['killed'] / r['judged']:.1%}"
        counts = f"{r['mutants']} | {r['judged']} | {r['killed']}"
        rows.append(f"| `{r['module']}` | {counts} | {share} | {between} | {r['minutes']} |")
    return "\n".join(rows)


def _interval(killed: int, judged: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.96, killed / judged
    middle, half = (
        p + z * z / (2 * judged),
        z * math.sqrt(p * (1 - p) / judged + z * z / (4 * judged**2)),
    )
    return (middle - half) / (1 + z * z / judged), (middle + half) / (1 + z * z / judged)


if __name__ == "__main__":
    sys.exit(main())
