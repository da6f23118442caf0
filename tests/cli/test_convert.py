import numpy as np
import pytest

from unitbox_tf import cli, datasets
from unitbox_tf.datasets import synthetic

SPLITS = {"fddb": "2", "wider_face": "train"}


def source_of(form, path):
    return f"{form}:{path}#{SPLITS.get(form, 'some')}"


@pytest.mark.parametrize("first", datasets.writable())
@pytest.mark.parametrize("second", datasets.writable())
def test_any_format_is_converted_to_any(first, second, tmp_path, capsys):
    a, b = tmp_path / "a", tmp_path / "b"
    assert cli.main(["convert", "synthetic:#0-3", source_of(first, a)]) == 0
    data = ["--data", str(tmp_path)]
    assert cli.main(["convert", source_of(first, "a"), source_of(second, b), *data]) == 0
    printed = capsys.readouterr().out
    pictures = [synthetic.draw(number) for number in range(3)]
    count = sum(len(p.boxes) for p in pictures)
    for title in ("read", "written"):
        assert f"{title}  3 images, {count} boxes, 0 of them ignored" in printed
    found = datasets.open(source_of(second, b)).annotations()
    for expected, annotation in zip(pictures, found, strict=True):
        assert annotation.name.removesuffix(".png") == expected.name
        assert annotation.encoded() == expected.image
        np.testing.assert_allclose(annotation.boxes, expected.boxes, atol=1e-5)


def test_convert_counts_what_is_ignored_and_lists_problems(tmp_path, capsys):
    faces = tmp_path / "faces"
    (faces / "WIDER_val/images").mkdir(parents=True)
    (faces / "WIDER_val/images/a.png").write_bytes(synthetic.draw(0).image)
    text = (
        "a.png\n3\n1 2 30 40 0 0 0 0 0 0\n1 2 0 4 0 0 0 0 0 0\n5 5 9 9 0 0 0 1 0 0\ngone.png\n0\n"
    )
    (faces / "wider_face_val_bbx_gt.txt").write_text(text)
    convert = ["convert", f"wider_face:{faces}#val"]
    assert cli.main([*convert, f"yolo:{tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "read  1 images, 3 boxes, 2 of them ignored" in printed
    assert "written  1 images, 1 boxes, 0 of them ignored" in printed
    for kind in ("image listed but absent", "box without area", "ignored objects left out"):
        assert f"1  x {kind}" in printed
    lines = (tmp_path / "out/problems.txt").read_text().splitlines()
    assert any("wider_face_val_bbx_gt.txt:4: expected a width and height" in line for line in lines)
    assert cli.main([*convert, f"csv:{tmp_path / 'lists'}", "--no-photos"]) == 0
    assert "written  2 images, 3 boxes" in capsys.readouterr().out
    assert not list((tmp_path / "lists").rglob("*.png"))
    assert cli.main([*convert, f"csv:{tmp_path / 'linked'}", "--link"]) == 0
    assert (tmp_path / "linked/images/a.png").stat().st_nlink == 2


def test_convert_says_what_is_wrong(tmp_path, capsys):
    out = f"coco:{tmp_path / 'out'}"
    for source, destination, status, message in (
        ("synthetic:#0-1", "synthetic:x", 2, "expected a destination as FORMAT:PATH#SPLIT"),
        ("synthetic:#0-1", "nofmt", 2, "expected a destination as FORMAT:PATH#SPLIT"),
        ("synthetic:#0-1", "coco:", 2, "Received: 'coco:', which has no path"),
        ("cocoa:x", out, 2, "expected a source as FORMAT:PATH#SPLIT"),
        ("coco:gone", out, 1, "gone: no such file or folder"),
        ("negatives:", out, 1, "nothing usable was found in 'negatives:'"),
        ("synthetic:#0-1", f"coco:{tmp_path}", 1, "expected a new or empty folder"),
    ):
        (tmp_path / "mine").touch()
        folder = tmp_path / "nothing"
        folder.mkdir(exist_ok=True)
        assert cli.main(["convert", source, destination, "--data", str(folder)]) == status
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "nothing"]


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "convert", interrupted)
    assert cli.main(["convert", "synthetic:#0-1", "csv:out"]) == 130
    assert capsys.readouterr().err.endswith("unitbox: interrupted\n")
