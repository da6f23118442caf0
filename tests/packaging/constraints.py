"""Writes the versions that continuous integration tests: the newest that were tested, and the lowest of setup.cfg.

    python -m tests.packaging.constraints newest python3.10 python3.11 python3.12 python3.13
    python -m tests.packaging.constraints lowest

The first asks the package index, with each Python, what `pip install '.[dev,docs]'` would install on this system. A
version that holds for some Pythons only has a marker. The second reads setup.cfg alone.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
NEWEST, LOWEST = ROOT / "constraints.txt", ROOT / "constraints-lowest.txt"
# Their users develop the package, and take the newest; `gpu` is TensorFlow once more.
NOT_LOWERED = {"dev", "docs", "gpu"}
# Its requirements refuse some of the newest versions of others: `make beam` tests it in an environment of its own.
APART = {"beam"}
HEADERS = {
    NEWEST: """\
# The versions that continuous integration tests, of all that [dev,docs] needs, on Linux. Made by
#     python -m tests.packaging.constraints newest python3.10 python3.11 python3.12 python3.13
# `make test` installs with it. To install the same: pip install -c constraints.txt '.[demo]'
""",
    LOWEST: """\
# The lowest versions that setup.cfg allows, with which `make lowest` runs tests. Made by
#     python -m tests.packaging.constraints lowest
# Some of them have wheels for Python 3.10 to 3.12 only.
""",
}


def requirements(*extras: str) -> list[Requirement]:
    """The requirements of the package in setup.cfg, and those of extras, without the package itself."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [each for each in found if canonicalize_name(each.name) != "unitbox-tf"]


def extras() -> list[str]:
    """The names of all extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return list(setup["options.extras_require"])


def lowest() -> str:
    """The content of constraints-lowest.txt."""
    lines = set()
    for each in requirements(*(extra for extra in extras() if extra not in NOT_LOWERED)):
        [floor] = [each.version for each in each.specifier if each.operator == ">="]
        marker = f"; {each.marker}" if each.marker else ""
        lines.add(f"{canonicalize_name(each.name)}=={floor}{marker}")
    return HEADERS[LOWEST] + "\n".join(sorted(lines)) + "\n"


def resolved(python: str) -> tuple[str, dict[str, str]]:
    """The version of a Python, and the versions that pip would install with it, by name."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside, report = f"{folder}/bin/python", f"{folder}/report.json"
        subprocess.run([inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        command = [inside, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--only-binary", ":all:", "--no-binary", "unitbox_tf", "--report", report]
        subprocess.run([*command, f"{ROOT}[dev,docs]"], check=True)
        content = json.loads(Path(report).read_text("utf-8"))
    found = {
        canonicalize_name(each["metadata"]["name"]): each["metadata"]["version"]
        for each in content["install"]
    }
    del found["unitbox-tf"]
    version = content["environment"]["python_version"]
    return version, found


def newest(pythons: list[str]) -> str:
    """The content of constraints.txt. Raises `CalledProcessError` if pip finds no versions for one of the Pythons."""
    by_python = dict(resolved(python) for python in pythons)
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python, found in by_python.items():
        for name, version in found.items():
            versions[name][version].append(python)
    lines = []
    for name, each in sorted(versions.items()):
        for version, of in each.items():
            marker = " or ".join(f'python_version == "{python}"' for python in of)
            alone = len(each) == 1  # then it is right for any Python that wants it
            lines.append(f"{name}=={version}" + ("" if alone else f"; {marker}"))
    return HEADERS[NEWEST] + "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Writes one of the files."""
    if arguments[:1] == ["newest"] and arguments[1:]:
        NEWEST.write_text(newest(arguments[1:]), encoding="utf-8")
    elif arguments == ["lowest"]:
        LOWEST.write_text(lowest(), encoding="utf-8")
    else:
        sys.exit(re.sub(r"^.*?\n\n", "", __doc__ or "", count=1, flags=re.DOTALL))


if __name__ == "__main__":
    main(sys.argv[1:])
