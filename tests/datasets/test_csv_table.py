"""Tables of other tools, and rows that cannot be read."""

import pytest

from tests.helpers.data_sets import class_names, photo, png, read, where
from unitbox_tf.datasets import checks


@pytest.fixture
def root(tmp_path):
    """A folder with two images."""
    photo(tmp_path / "a.png", png(48, 64))
    photo(tmp_path / "b.png", png(48, 64))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "image,x0,y0,x1,y1,class\na.png,10,10.5,30,30,cat\n",
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,cat,10,10.5,30,30\n",  # TensorFlow
        "image,xmin,ymin,xmax,ymax,label\na.png,10,10.5,30,30,cat\n",  # VoTT
        "path,x1,y1,x2,y2,class_name\nimages/../a.png,10,10.5,30,30,cat\n",  # Keras RetinaNet
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
        "cat,10,10.5,20,19.5,a.png,64,48\n",  # makesense.ai
        "Class;File Name;X_Min;Y_Min;X_Max;Y_Max;Remark\ncat;a.png;10;10,5;30,0;30;small; \n"[:-3]
        + "\n",
        "image\tleft\ttop\tright\tbottom\tcategory\na.png\t10\t10.5\t30\t30\tcat\n",
        "image,x0,y0,x1,y1,class\r\na.png, 30 ,30,10,10.5, cat\r\n",  # corners that were swapped
        '"image","x0","y0","x1","y1","class"\n"a.png","10","10.5","3e1","30","cat"\n',
    ],
)
def test_tables_of_other_tools(root, problems, text):
    (root / "boxes.csv").write_text(text)
    (annotation,) = read("csv", root, "", problems)
    assert annotation.name == "a.png"
    assert annotation.boxes.tolist() == [[10, 10.5, 30, 30]]
    assert annotation.size == ((48, 64) if "width" in text else None)
    assert class_names("csv", root, "") == ("cat",)
    assert not problems.found


def test_a_table_without_classes(root, problems):
    (root / "boxes.csv").write_text("image,x0,y0,x1,y1\na.png,1,2,3,4\nb.png,,,,\n")
    a, b = read("csv", root, "", problems)
    assert (a.boxes.tolist(), a.classes.tolist(), len(b.boxes)) == ([[1, 2, 3, 4]], [0], 0)
    assert class_names("csv", root, "") is None
    assert not problems.found


@pytest.mark.parametrize(
    "header",
    [
        "filename,x,y,w,h,class",  # corner, or centre?
        "image,x0,y0,x1,class",
        "x0,y0,x1,y1,class",
        "image,filename,x0,y0,x1,y1,class",
        "a.png,10,10,30,30,cat",
        "",
    ],
)
def test_other_headers_are_refused(root, header):
    (root / "boxes.csv").write_text(f"{header}\na.png,1,2,3,4,cat\n")
    with pytest.raises(
        ValueError, match=r"boxes\.csv:1: expected the header image,x0,y0,x1,y1,class"
    ):
        read("csv", root, "")


@pytest.mark.parametrize(
    "row",
    [
        "a.png,1,2,3,,cat",
        "a.png,1,2,3,nan,cat",
        "a.png,1,2,3,four,cat",
        "a.png,1,2,3,1_0,cat",
        "a.png,1,2,3,4,",
        "a.png,,,,,cat",
        "a.png,1,2,3,4,bird",
        "a.png,1,2,3,4",
        "a.png,1,2,3,4,cat,more",
        '"a.png,1,2,3,4,cat',
        'a.png,1,2,3,4,"cat"s',
        "./a.png,1,2,3,x,cat",
    ],
)
def test_an_image_is_left_out_with_a_row_that_cannot_be_read(root, problems, row):
    (root / "labels.txt").write_text("cat\n")
    text = f"image,x0,y0,x1,y1,class\na.png,1,2,3,4,cat\nb.png,5,6,7,8,cat\n{row}\n"
    (root / "boxes.csv").write_text(text)
    assert [a.name for a in read("csv", root, "", problems)] == ["b.png"]
    ((kind, place),) = where(problems)
    assert kind in (checks.UNREADABLE, checks.MALFORMED)
    assert place == "boxes.csv:4"
    assert "left out" in str(problems.found[0])


def test_rows_of_one_file_are_put_together_however_it_is_named(root, problems):
    rows = "a.png,1,2,3,4,cat\nb.png,,,,,\n.\\a.png,5,6,7,8,cat\nA.PNG,6,6,7,8,cat\n"
    (root / "boxes.csv").write_text(f"image,x0,y0,x1,y1,class\n{rows}")
    a, _ = read("csv", root, "", problems)
    assert a.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [6, 6, 7, 8]]
    assert not problems.found


def test_a_split_that_is_absent_is_compared_with_those_that_are_there(root):
    (root / "train.csv").write_text("")
    with pytest.raises(ValueError, match=r"There are \['train'\]\. Did you mean 'train'\?"):
        read("csv", root, "trian")


def test_many_swapped_corners_are_reported_as_they_may_be_sides(root, problems):
    rows = "a.png,30,10,20,20,cat\n" * 5 + "b.png,1,2,3,4,cat\n"
    (root / "boxes.csv").write_text(f"image,x0,y0,x1,y1,class\n{rows}")
    read("csv", root, "", problems)
    assert [problem.kind for problem in problems.found] == [checks.SWAPPED]
    assert "of 5 of 6 boxes" in str(problems.found[0])
