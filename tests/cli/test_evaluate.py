import json

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.helpers.coco import coco_set
from tests.helpers.data_sets import png
from tests.helpers.wider_face import read_parity
from unitbox_tf import cli
from unitbox_tf.datasets import synthetic
from unitbox_tf.evaluation import wider_face


@pytest.mark.parametrize("folder", ["", "saved_model"])
def test_evaluate_prints_a_table_and_writes_results(untrained_run, tmp_path, capsys, folder):
    out = tmp_path / "out"
    model = str(untrained_run / folder)
    assert cli.main(["evaluate", model, "synthetic:#200-204", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "synthetic:#200-204: 4 images" in printed
    assert "4 present, 0 absent; 96 x 96 px, shown shrunk to fit 64 px" in printed
    assert (
        f"written to {out}: results.json, and detections and curves in peaks/, ellipse/" in printed
    )
    results = json.loads((out / "results.json").read_text())
    assert set(results["metrics"]) == {"peaks", "ellipse"}
    for decoder in results["metrics"]:
        assert (out / decoder / "curves.png").stat().st_size > 0
        assert len(list((out / decoder).glob("*.jpg"))) == 4
        # What is written can be judged, and gives the same figures.
        again = tmp_path / "again" / decoder
        again.parent.mkdir(exist_ok=True)
        found = str(out / decoder / "detections.json")
        assert cli.main(["evaluate", found, "synthetic:#200-204", "--output", str(again)]) == 0
        figures = json.loads((again / "results.json").read_text())["metrics"]["detections"]
        assert figures == results["metrics"][decoder]


def test_evaluate_gives_cocos_figures_for_the_results_of_another_tool(tmp_path, capsys):
    coco_set(tmp_path)
    data, found = ["--data", str(tmp_path)], str(tmp_path / "found.json")
    judge = ["evaluate", found, "coco:set.json", *data, "--protocol", "coco", "--output"]
    assert cli.main([*judge, str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "6 images, 51 objects and 9 ignored, version" in printed
    assert "0 present, 6 absent; 99 x 90 px" in printed
    truth = COCO(str(tmp_path / "set.json"))
    run = COCOeval(truth, truth.loadRes(found), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    expected = [None if figure < 0 else figure for figure in run.stats]
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["metrics"]["found"].values()) == expected
    assert 0.1 < results["metrics"]["found"]["ap"] < 0.9
    assert len({results["metrics"]["found"][f"ap_{size}"] for size in ("small", "medium")}) == 2
    # What is written is COCO's results again, with the ids of the data set.
    again = truth.loadRes(str(tmp_path / "out/found/detections.json"))
    rows = truth.loadRes(found)

    def facts(row):
        return (row["image_id"], row["category_id"], *row["bbox"], row["score"])

    assert sorted(map(facts, again.anns.values())) == sorted(map(facts, rows.anns.values()))


def test_evaluate_gives_programs_the_classes_and_the_folder(tmp_path, capsys):
    coco_set(tmp_path)
    judge = ["evaluate", str(tmp_path / "found.json"), f"coco:{tmp_path / 'set.json'}", "--json"]
    assert cli.main([*judge, "--output", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("output") == str(tmp_path / "out")
    assert printed == json.loads((tmp_path / "out/results.json").read_text())
    found = printed["by_class"]["found"]
    assert [row["name"] for row in found["classes"]] == ["cat", "dog"]
    assert found["confusion_matrix"]["score_threshold"] == found["best_f1"]["threshold"]
    assert cli.main(judge) == 0
    assert "output" not in json.loads(capsys.readouterr().out)


def test_evaluate_gives_the_official_curves_of_fddb(data, tmp_path, capsys):
    parity = data("fddb/eval_parity")
    evaluate = ["evaluate", str(parity / "fddb_mtcnn_lqy_result.txt"), "fddb:fddb"]
    evaluate += ["--data", str(data("fddb/FDDB-folds").parents[1]), "--protocol", "fddb"]
    evaluate += ["--image-sizes", str(data("fddb/image_dims_all2845.json"))]
    assert cli.main([*evaluate, "--output", str(tmp_path)]) == 0
    assert "2845 images, 5171 objects and 0 ignored" in capsys.readouterr().out
    name = "fddb_mtcnn_lqy_result"
    for curve in ("DiscROC", "ContROC"):
        ours = (tmp_path / name / f"{name}-{curve}.txt").read_bytes()
        assert ours == (parity / f"fddb_mtcnn_lqy_{curve}.txt").read_bytes()


@pytest.mark.slow
def test_evaluate_gives_the_official_curves_of_wider_face(data, tmp_path):
    parity = data("wider/eval_parity")
    detections = read_parity(parity / "detections_yolov7face.txt.gz")
    wider_face.write_detections(detections, tmp_path / "yolov7face")
    evaluate = ["evaluate", str(tmp_path / "yolov7face"), "wider_face:wider/annotations#val"]
    evaluate += ["--data", str(data("wider/annotations").parents[1]), "--protocol", "wider_face"]
    assert cli.main([*evaluate, "--output", str(tmp_path / "out")]) == 0
    for difficulty in wider_face.DIFFICULTIES:
        ours = tmp_path / f"out/yolov7face/wider_pr_info_yolov7face_{difficulty}_val.txt"
        official = parity / f"official_pr_yolov7face_{difficulty}.txt"
        assert ours.read_bytes() == official.read_bytes()


def test_evaluate_takes_only_the_photos_that_are_there(tmp_path, capsys):
    coco_set(tmp_path)
    for number in (1, 4):
        (tmp_path / f"{number}.jpg").write_bytes(png(90, 99))
    judge = ["evaluate", str(tmp_path / "found.json"), f"coco:{tmp_path / 'set.json'}", "--present"]
    assert cli.main(judge) == 0
    printed = capsys.readouterr().out
    assert "2 images" in printed
    assert "2 present, 4 absent; 99 x 90 px" in printed
    assert "20 in 2 images" in printed
    assert "not to be compared with published metrics" in printed


def test_evaluate_says_that_photos_cannot_be_read(untrained_run, tmp_path, capsys):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(synthetic.draw(number).image)
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "some.csv").write_text(
        "image,x0,y0,x1,y1,class\n" + "".join(f"{n}.png,1,1,20,20,object\n" for n in range(4))
    )
    judge = ["evaluate", str(untrained_run), f"csv:{tmp_path}", "--decoder", "peaks"]
    assert cli.main([*judge, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "3 present, 1 of them cannot be read, 1 absent" in printed
    assert "2 images" in printed
    assert "judged on a part of the images: not to be compared" in printed
    facts = json.loads((tmp_path / "out/results.json").read_text())["images"]
    assert (facts["present"], facts["unreadable"], facts["absent"]) == (3, 1, 1)


@pytest.mark.parametrize("name", ["...json", "problems.txt.json", "results.json.json", "a b.json"])
def test_the_name_of_a_file_of_detections_leads_nowhere(tmp_path, name):
    coco_set(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / "found.json").read_bytes())
    out = tmp_path / "deep" / "out"
    judge = [
        "evaluate",
        str(tmp_path / name),
        f"coco:{tmp_path / 'set.json'}",
        "--output",
        str(out),
    ]
    assert cli.main(judge) == 0
    [folder] = (path for path in out.iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    assert names == {"confusion_matrix.png", "curves.png", "detections.json"}
    assert list(out.parent.iterdir()) == [out]


def test_evaluate_says_what_is_wrong(untrained_run, tmp_path, capsys):
    coco_set(tmp_path)
    run, found = str(untrained_run), str(tmp_path / "found.json")
    for arguments, message in (
        ([run, "synthetic:#0-2", "--protocol", "fddb"], "needs faces annotated as ellipses"),
        ([run, "synthetic:#0-2", "--protocol", "wider_face"], "wider_face_val.mat"),
        ([found, "coco:set.json", "--max-side", "64"], "max_side is for models"),
        ([found, "coco:set.json", "--decoder", "peaks"], "decoder is for models"),
        ([str(tmp_path), "coco:set.json"], "Expected detections: a json list as of COCO"),
        ([str(tmp_path / "gone"), "coco:set.json"], "gone: no such file or folder. Expected a run"),
        ([found, "synthetic:#0-2"], "expected detections of images such as"),
        ([found, "coco:gone.json"], "gone.json: no such file or folder"),
        ([found, "coco:set.json", "--output", str(tmp_path)], "expected a new or empty folder"),
    ):
        assert cli.main(["evaluate", *arguments, "--data", str(tmp_path)]) == 1, arguments
        assert message in capsys.readouterr().err
    for arguments, message in (
        ([found, "cocoa:set.json"], "Received: 'cocoa:set.json'. Did you mean coco?"),
        ([run, "synthetic:#0-2", "--iou", "exact"], "iou is for the protocol wider_face"),
        ([found, "coco:set.json", "--curves", str(tmp_path)], "Expected --output beside --curves"),
    ):
        assert cli.main(["evaluate", *arguments, "--data", str(tmp_path)]) == 2, arguments
        assert message in capsys.readouterr().err
