"""The lists of versions agree with setup.cfg, and SECURITY.md with the code."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging import constraints
from unitbox_tf import limits


def read(path):
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_the_list_for_processors_is_that_of_the_package():
    listed = read(constraints.ROOT / "requirements-tensorflow-cpu.txt")
    expected = [str(each) for each in constraints.requirements()]
    cpu = [str(Requirement(line)).replace("tensorflow-cpu", "tensorflow") for line in listed]
    assert cpu == expected


def test_the_lowest_versions_are_those_of_setup_cfg():
    assert constraints.LOWEST.read_text("utf-8") == constraints.lowest()


def test_every_requirement_has_a_lowest_version():
    for each in constraints.requirements(*constraints.extras()):
        assert [one.operator for one in each.specifier].count(">=") == 1, each


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_is_tested_is_allowed_and_complete(python):
    here = {"python_version": python, "platform_system": "Linux", "sys_platform": "linux"}
    pins = [Requirement(line) for line in read(constraints.NEWEST)]
    for pin in pins:
        assert re.fullmatch(r"==[\w.+!]+", str(pin.specifier)), f"{pin}: expected one version"
        assert pin.url is None
    versions = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(here)
    }
    together = [extra for extra in constraints.extras() if extra not in constraints.APART]
    for each in constraints.requirements(*together):
        if each.marker is None or each.marker.evaluate(here):
            assert each.specifier.contains(versions[canonicalize_name(each.name)]), each


def test_versions_of_other_pythons_have_markers(monkeypatch):
    found = {
        "a": ("3.10", {"numpy": "2.2", "rich": "15", "tomli": "2"}),
        "b": ("3.11", {"numpy": "2.4", "rich": "15"}),
    }
    monkeypatch.setattr(constraints, "resolved", found.get)
    lines = constraints.newest(["a", "b"]).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'numpy==2.2; python_version == "3.10"',
        'numpy==2.4; python_version == "3.11"',
        "rich==15",
        "tomli==2",
    ]


def security():
    return (constraints.ROOT / "SECURITY.md").read_text("utf-8")


def test_security_md_has_the_limits_of_the_code():
    table = security().partition("<!-- limits:")[2].partition("<!-- end of limits -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", table, re.MULTILINE)
    written = {name: int(value.replace(",", "")) for name, value in rows}
    assert written == {name: value for name, value in vars(limits).items() if name.isupper()}


def test_security_md_has_the_lowest_versions():
    section = security().partition("## Least versions")[2].partition("\n## ")[0]
    floors = {line.partition("==")[0]: line.partition("==")[2] for line in read(constraints.LOWEST)}
    names = {"TensorFlow": "tensorflow", "OpenCV": "opencv-python-headless", "PyAV": "av"}
    rows = re.findall(r"^\| ([\w-]+) \| (\d[\d.]*\d)\b", section, re.MULTILINE)
    assert len(rows) > 10
    for name, version in rows:
        floor = floors[names.get(name, canonicalize_name(name))]
        assert floor.partition(";")[0].startswith(version), name
