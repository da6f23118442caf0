"""The reference of all public names that `make docs` writes."""

import html
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("pdoc", reason="needs pdoc: pip install 'unitbox_tf[docs]'")

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs" / "reference"))
make = importlib.import_module("make")


def test_modules_come_from_the_ground_up():
    names = make.modules(ROOT / "pyproject.toml")
    assert names[0] == "unitbox_tf"
    order = ["boxes", "config", "records", "datasets", "detect", "evaluation", "train", "cli"]
    places = [names.index(f"unitbox_tf.{name}") for name in order]
    assert places == sorted(places)
    package = ROOT / "unitbox_tf"
    found = {path.stem for path in package.glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {f"unitbox_tf.{name}" for name in found} == set(names[1:])


@pytest.mark.slow
def test_every_public_name_has_its_docstring_signature_and_source(tmp_path):
    make.make(make.modules(ROOT / "pyproject.toml"), tmp_path)
    assert "unitbox_tf.html" in (tmp_path / "index.html").read_text("utf-8")
    checked = 0
    for path in sorted((ROOT / "unitbox_tf").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        page = tmp_path.joinpath(*parts).with_suffix(".html").read_text("utf-8")
        module = importlib.import_module(".".join(parts))
        for name, value in vars(module).items():
            public = inspect.isfunction(value) or inspect.isclass(value)
            if not public or name.startswith("_") or value.__module__ != module.__name__:
                continue
            section = page.partition(f'<section id="{name}">')[2].partition("</section>")[0]
            assert section, f"{module.__name__}.{name} is missing"
            assert "View Source" in section
            assert re.search(rf'<span class="name">{name}</span>', section), name
            words = section.partition('class="docstring"')[2].partition("</div>")[0]
            words = re.sub("<[^>]+>", "", words)
            first = re.search(r"\w+", inspect.getdoc(value))[0]
            assert first in html.unescape(words), f"{module.__name__}.{name}"
            checked += 1
    assert checked > 150


@pytest.mark.parametrize(
    ("text", "good"), [("def f() -> int: ...", True), ("def f() -> 'Missing': ...", False)]
)
def test_a_type_that_cannot_be_resolved_is_an_error(text, good, tmp_path, monkeypatch):
    name = f"documented_{good}".lower()
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    if good:
        make.make([name], tmp_path / "out")
        assert (tmp_path / "out" / f"{name}.html").is_file()
    else:
        with pytest.raises(UserWarning, match="Missing"):
            make.make([name], tmp_path / "out")
