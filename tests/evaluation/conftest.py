import pytest


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were to be written, each with its path and its resolution. They are not rendered."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    written = []
    monkeypatch.setattr(
        figure, "savefig", lambda self, path, *, dpi: written.append((self, path, dpi))
    )
    return written
