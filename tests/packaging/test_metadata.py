"""setup.cfg says what the package is and needs; the code, the folders and the other lists agree with it."""

import ast
import configparser
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging import constraints

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "unitbox_tf"
NAME = "unitbox-tf"

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")

# Requirements of the base that the code does not import itself.
USED_BY_TENSORFLOW = {"tensorboard"}


def listed(section, option):
    """The lines of an option, without comments."""
    lines = (line.strip() for line in SETUP[section][option].splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def distributions(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def in_extra(extra):
    """Distributions that an extra adds, with those of the extras that it names."""
    found = set()
    for line in listed("options.extras_require", extra):
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == NAME:
            found |= {name for each in requirement.extras for name in in_extra(each)}
        else:
            found.add(canonicalize_name(requirement.name))
    return found


BASE = distributions(listed("options", "install_requires"))
EXTRAS = list(SETUP["options.extras_require"])


def providers():
    """The distributions that install each top-level module."""
    found = importlib.metadata.packages_distributions().items()
    return {module: {canonicalize_name(name) for name in names} for module, names in found}


def beginning(node):
    """The text of a literal, or the one before the first value in an f-string."""
    return ast.literal_eval(node.values[0] if isinstance(node, ast.JoinedStr) else node)


def imports_of(path):
    """Top-level modules of other projects that a file needs.

    Returns:
        Those that it imports: name, line, whether the import stands in a function.
        Those that it loads with `optional.load`: name, line, extra.
    """
    imported, loaded = [], []
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body.clear()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "optional.load":
            module, extra = (beginning(argument) for argument in node.args[:2])
            loaded.append((module.partition(".")[0], node.lineno, extra))
        for name in names:
            imported.append((name.partition(".")[0], node.lineno, id(node) in inside))
    known = {"unitbox_tf", *sys.stdlib_module_names}
    return [each for each in imported if each[0] not in known], loaded


IMPORTS = {path.relative_to(ROOT): imports_of(path) for path in sorted(PACKAGE.rglob("*.py"))}


PUBLISHED = ("faces", "faces_light")


def test_every_folder_of_the_package_is_listed():
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    names = {".".join(folder.parts) for folder in folders}
    published = {f"unitbox_tf.saved_models.{name}" for name in PUBLISHED}
    assert names | published == set(listed("options", "packages"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_file_of_what_is_published_is_listed(name):
    names = listed("options.package_data", f"unitbox_tf.saved_models.{name}")
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone: git tells which files are published")
    command = ["git", "ls-files", "--", f"saved_models/{name}"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(names) == [Path(line).name for line in listing.stdout.split()]


def test_what_is_imported_is_required():
    provided = providers()
    for path, (imported, loaded) in IMPORTS.items():
        optional = {module for module, *_ in loaded}
        for module, line, in_function in imported:
            if not (in_function and module in optional):
                assert provided.get(module, set()) & BASE, f"{path}:{line}: {module} is in no list"


def test_what_is_loaded_for_an_extra_is_in_it():
    provided, checked = providers(), set()
    for path, (_, loaded) in IMPORTS.items():
        for module, line, extra in loaded:
            if module in provided:  # else that extra is not installed here
                assert provided[module] & in_extra(extra), f"{path}:{line}: {module}, {extra}"
                checked.add(extra)
    assert {"onnx", "litert"} <= checked


def test_what_is_required_is_imported():
    provided = providers()
    modules = {module for imported, _ in IMPORTS.values() for module, *_ in imported}
    used = {name for module in modules for name in provided.get(module, ())}
    assert BASE - USED_BY_TENSORFLOW <= used


def test_the_judges_and_plots_libraries_are_no_part_of_the_base():
    judges = {"pycocotools", "scipy", "supervision"}
    assert in_extra("evaluation") == {*judges, "matplotlib"}
    assert not in_extra("evaluation") & BASE


def test_the_tests_have_every_extra():
    for extra in sorted({*EXTRAS} - {"gpu", "dev", "docs"} - constraints.APART):
        assert in_extra(extra) <= in_extra("dev"), extra
    rules = (ROOT / "Makefile").read_text("utf-8")
    for extra in constraints.APART:
        assert f"--editable '.[dev,{extra}]'" in rules


def test_the_list_for_tensorflow_cpu_differs_in_that_alone():
    lines = (ROOT / "requirements-tensorflow-cpu.txt").read_text("utf-8").splitlines()
    received = [line for line in lines if not line.startswith("#")]
    expected = listed("options", "install_requires")
    assert received == [line.replace("tensorflow >=", "tensorflow-cpu >=") for line in expected]
    assert received != expected


def test_serving_comes_with_the_same_tensorflow():
    versions = {
        requirement.name: str(requirement.specifier)
        for requirement in map(Requirement, listed("options.extras_require", "dev"))
    }
    [tensorflow] = [
        Requirement(line)
        for line in listed("options", "install_requires")
        if Requirement(line).name == "tensorflow"
    ]
    assert versions["tensorflow-serving-api"] == str(tensorflow.specifier)


def test_the_python_versions_are_the_same_everywhere():
    prefix = "Programming Language :: Python :: 3."
    classifiers = listed("metadata", "classifiers")
    versions = [int(line.removeprefix(prefix)) for line in classifiers if line.startswith(prefix)]
    first, last = versions[0], versions[-1]
    assert versions == list(range(first, last + 1))
    assert SETUP["options"]["python_requires"] == f">=3.{first},<3.{last + 1}"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"(3, {first}) <= v <= (3, {last})" in makefile


def test_the_paper_is_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = citation["preferred-citation"]
    assert paper["title"] == "UnitBox: An Advanced Object Detection Network"
    assert paper["doi"] == "10.1145/2964284.2967274"
    assert citation["authors"] == [{"name": SETUP["metadata"]["author"]}]
