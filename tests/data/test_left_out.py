"""Own images of every format that Pillow reads, and what is told about files, folders and links left out."""

import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_image
from PIL import Image

from reidlib.cli import main
from reidlib.data import load
from reidlib.data.check import check, deviations_and_warnings
from reidlib.data.images import decode
from reidlib.data.readers.listing import IMAGE_ENDINGS, OWN_ENDINGS, scan
from reidlib.data.readers.own import list_own_images
from reidlib.errors import InputError

PERSONS = tuple(f"{person}/{camera}/{name}.jpg" for person in "abcd" for camera in "12" for name in "xy")


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name) if name.endswith(".jpg") else (root / name).write_bytes(b"GIF89a" + bytes(9))
    return root


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return put(tmp_path / "set" / "own", *PERSONS)


def told(root, name="folder"):
    """Return what a check says of things left out, and its last line; training and search say the same."""
    report = check(name, root, progress=False)
    lines = [line for line in report.text().splitlines() if "left out: " in line]
    warnings = deviations_and_warnings(name, root)[1]
    assert sorted(line.partition(": ")[2] for line in lines) == sorted(
        w for w in warnings if "left out: " in w
    )
    if name == "folder":
        assert [*list_own_images(root).warnings] == [w for w in warnings if "left out: " in w]
    return lines, report.text().splitlines()[-1]


def test_every_ending_is_one_that_pillow_reads():
    """The list is fixed; each of its endings belongs to a format that this Pillow opens and decodes."""
    Image.init()
    formats = {ending: Image.registered_extensions()[ending] for ending in OWN_ENDINGS}
    assert set(formats.values()) <= set(Image.OPEN)
    assert set(formats.values()) == {"JPEG", "PNG", "BMP", "WEBP", "TIFF", "DIB", "JPEG2000", "PPM"}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(OWN_ENDINGS), st.randoms(use_true_random=False))
def test_every_ending_is_read_in_any_case(tmp_path_factory, ending, random):
    root = tmp_path_factory.mktemp("set")
    name = "x" + "".join(random.choice((c.lower(), c.upper())) for c in ending)
    Image.new("RGB", (4, 8), (90, 120, 60)).save(root / name, Image.registered_extensions()[ending])
    assert list_own_images(root).names == (name,) == list_own_images(root / name).names
    assert decode(root / name).shape == (8, 4, 3)
    assert scan(root, IMAGE_ENDINGS)[0] == ([name] if ending in IMAGE_ENDINGS else [])


def test_a_complete_set_is_called_complete(own):
    put(
        own,
        "a/._x.jpg",
        "__MACOSX/a/x.jpg",
        ".ipynb_checkpoints/x.jpg",
        "a/1/@eaDir/x.jpg",
        ".Trash-0/a/x.jpg",
    )
    for name in ("Thumbs.db", "a/desktop.ini", "a/.DS_Store", "notes.txt", "a/list.csv", "a/LICENSE"):
        (own / name).write_text("no image")
    assert told(own) == ([], "complete and readable")


def test_endings_that_are_not_read_are_told(own):
    put(own, "a/1/z.HEIC", "b/z.gif", "c/film.mp4", "stray.avif", "d/2/3/4/deep.dng", "e/only.tga")
    lines, last = told(own)
    assert lines == [
        f"remark: left out: 6 files with an ending that is not read, in {own}: "
        "a/1/z.HEIC, b/z.gif, c/film.mp4 and 3 more; convert images to .jpg or .png"
    ]
    assert last == "readable, but 6 left out"
    assert main(["check", "folder", str(own)]) == 0


def test_images_without_the_ending_of_one_are_told(own):
    for name in ("a/1/noending", "a/1/z.jpg~", "a/1/z.jpg_large", "b/z.png.1"):
        shutil.copy(own / "a/1/x.jpg", own / name)
    (own / "a/1/empty").touch()
    (own / "a/1/x.jpg.json").write_text("{}")
    lines, _ = told(own)
    assert len(lines) == 1 and "4 images without an image's ending" in lines[0] and "a/1/noending" in lines[0]


def test_hidden_images_are_told(own):
    put(own, "a/1/.hidden.jpg", ".eve/1/x.jpg", ".eve/2/x.jpg", ".empty/notes.gif")
    lines, _ = told(own)
    assert len(lines) == 1 and "3 images hidden by a dot before a name" in lines[0]
    assert ".eve/1/x.jpg, .eve/2/x.jpg, a/1/.hidden.jpg; rename them" in lines[0]


def test_links_that_lead_nowhere_fail_a_check(own):
    (own / "a/1/gone.jpg").symlink_to("nowhere.jpg")
    (own / "b/gone").symlink_to(own / "nobody")
    (own / "self").symlink_to("self")
    (own / "good.link").symlink_to(own / "c")  # a folder by a link: a person
    lines, last = told(own)
    assert len(lines) == 1 and lines[0].startswith("problem: left out: 3 links without a target")
    assert "a/1/gone.jpg, b/gone, self; put back the targets" in lines[0] and last == "1 problem"
    assert main(["check", "folder", str(own)]) == 1
    assert len(load("folder", own).train)  # it loads as before
    assert "good.link" in list_own_images(own).persons


def test_links_to_folders_are_followed_but_loops_are_left_out(own, tmp_path):
    shutil.move(own / "d", tmp_path / "elsewhere")
    (own / "d").symlink_to(tmp_path / "elsewhere")
    before = load("folder", own).fingerprint
    (own / "again").symlink_to(own)
    (own / "a" / "up").symlink_to("..")
    (own / "a" / "1" / "here").symlink_to(".")
    (own / "up").symlink_to(own.parent)
    lines, _ = told(own)
    assert len(lines) == 1 and "4 links back to a folder above" in lines[0]
    assert "a/1/here, a/up, again and 1 more; remove them" in lines[0]
    assert load("folder", own).fingerprint == before
    assert list_own_images(own).persons == tuple("a" * 4 + "b" * 4 + "c" * 4 + "d" * 4)


def test_links_in_a_circle_end(own, tmp_path):
    """Two folders, each with a link to the other, below the cameras: their images are too deep, once."""
    for here, other in (("one", "two"), ("two", "one")):
        put(tmp_path / here, "z.jpg")
        (tmp_path / here / "next").symlink_to(tmp_path / other)
    (own / "a/1/next").symlink_to(tmp_path / "one")
    with pytest.raises(InputError, match=r"got 2 images in deeper folders, such as .*a/1/next/z\.jpg"):
        load("folder", own)
    flat = put(tmp_path / "flat", "x.jpg")
    (flat / "self").symlink_to(flat)
    assert list_own_images(flat).names == ("x.jpg",)
    assert "1 link back to a folder above" in list_own_images(flat).warnings[0]


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_deep_folders_are_refused_for_every_ending(own, ending):
    deep = own / "a" / "1" / "/".join("n" * 40)
    deep.mkdir(parents=True)
    shutil.copy(own / "a/1/x.jpg", deep / f"z{ending}")
    with pytest.raises(InputError, match=r"got 1 image in deeper folders, such as .*n/z"):
        load("folder", own)
    with pytest.raises(InputError, match="deeper folders"):
        list_own_images(own)


def test_a_folder_of_other_endings_alone_is_refused_with_their_names(tmp_path):
    root = put(tmp_path / "far" / "set", "a/1.heic", "b/2.heic")
    with pytest.raises(
        InputError, match=r"no image \(.*left out: 2 files with an ending .* a/1\.heic, b/2\.heic"
    ):
        list_own_images(root)


@pytest.mark.parametrize("root", ["heic", "links"])
def test_a_set_of_which_all_is_left_out_is_told_once_with_a_mend_that_helps(own, root):
    """The folder above looks like persons, but what has to be mended are the files."""
    for name in "abc":
        put(own.parent, f"other{name}/1.jpg", f"heic/{name}/1.heic")
        (own.parent / "links" / name).mkdir(parents=True)
        (own.parent / "links" / name / "1.jpg").symlink_to(own / "absent.jpg")
    report = check("folder", own.parent / root, progress=False)
    assert report.text().count("left out: 3 ") == 1 and "too low" not in report.text()
    mend = "convert images to .jpg or .png" if root == "heic" else "put back the targets, or remove the links"
    assert len(report.problems) == 1 and report.problems[0].endswith(mend)


@pytest.mark.parametrize("folder", ["a", "a/1", "a/1/deep", "a/1/deep/deeper", "train"])
def test_a_folder_that_cannot_be_listed_is_refused(own, monkeypatch, folder):
    (own / folder).mkdir(parents=True, exist_ok=True)
    scandir = os.scandir

    def refuse(path="."):
        if str(path) == str(own / folder):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    if folder == "train":  # a set with splits
        for split in ("query", "gallery"):
            put(own, f"{split}/a/1/x.jpg", f"{split}/a/2/x.jpg")
    # Rights alone would not do: tests may run as a user who may read everything.
    monkeypatch.setattr("reidlib.data.readers.listing.os.scandir", refuse)
    for call in (
        lambda: check("folder", own, progress=False),
        lambda: load("folder", own),
        lambda: list_own_images(own if folder != "train" else own / folder),
    ):
        with pytest.raises(
            InputError, match=rf"can be listed; got Permission denied: {own / folder}; check its"
        ):
            call()


def test_a_public_benchmark_reads_its_formats_and_tells_of_others(market):
    before = load("market1501", market).fingerprint
    shutil.copy(market / "query/0001_c1s1_001051_00.jpg", market / "query/0001_c1s1_001052_00.webp")
    (market / "bounding_box_test/deep/er").mkdir(parents=True)
    shutil.copy(market / "query/0001_c1s1_001051_00.jpg", market / "bounding_box_test/deep/er/1.jpg")
    lines, _ = told(market, "market1501")
    assert len(lines) == 2 and "1 file with an ending that is not read" in lines[0]
    assert "1 image in deeper folders" in lines[1]
    assert load("market1501", market).fingerprint == before


def test_a_csv_does_not_list_links_that_lead_nowhere(own):
    (own / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(own / "pipe.jpg")  # opening it would wait for ever
    (own / "list.csv").write_text("path,person\na/1/x.jpg,1\ngone.jpg,1\npipe.jpg,2\n")
    with pytest.raises(InputError, match=r"2 of 3 missing .* line 3: gone\.jpg, line 4: pipe\.jpg"):
        load("csv", own / "list.csv")


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"{place}{name}"
                for place in ("", "a/", "a/1/", "e/", "e/9/", ".h/", "a/1/q/")
                for name in ("z.gif", "z.HEIC", "z.txt", "z", ".z.jpg", "._z.jpg", "Thumbs.db", "z.jpg~")
            ]
        ),
        st.sampled_from(["image", "text", "link"]),
        max_size=8,
    )
)
def test_a_set_is_complete_only_if_nothing_that_looks_like_an_image_is_left_out(tmp_path_factory, entries):
    """Of any mixture of entries, those that look like images or links are counted, and no other."""
    root = put(tmp_path_factory.mktemp("set"), *PERSONS)
    expected = set()
    for name, kind in entries.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "image":
            Image.new("RGB", (4, 8)).save(path, "JPEG")
        elif kind == "text":
            path.write_text("text")
        else:
            path.symlink_to("nowhere")
        ending = name.rpartition("/")[2].partition(".")[2].lower()
        is_programs = "._z" in name or "Thumbs" in name
        looks_like_one = kind == "link" or ending in ("gif", "heic", "z.jpg")
        looks_like_one |= kind == "image" and ending != "txt"
        if looks_like_one and not is_programs and not name.startswith(".h/"):
            expected.add(name)  # in the hidden folder no image has an ending that is read
    report = check("folder", root, progress=False)
    assert report.num_left_out == len(expected), (expected, report.text())
    assert ("complete and readable" in report.text()) == (not expected)


def test_a_training_and_an_embedding_tell_it(own, tmp_path, capsys):
    put(own, "a/z.heic", "0/1/x.jpg", *(f"{name}/1/{i}.jpg" for name in ("Anna", "anna") for i in range(8)))
    training = ["train", "jlml", "--profile", "smoke", "--benchmark", "folder", "--data-root", str(own)]
    assert main(training) == 0
    out, told = capsys.readouterr()
    for words in (
        "1 file with an ending that is not read",
        "1 image of distractors (person 0)",
        "Anna and anna",
    ):
        assert told.count(words) == 1
    run = out.split("run: ")[1].strip()
    assert main(["embed", run, str(own), str(tmp_path / "out.npz")]) == 0
    text = capsys.readouterr().out
    assert (
        "remark: left out: 1 file with an ending" in text and "names taken for an unknown person: 0" in text
    )
    assert "spellings taken for several persons, which may be one: Anna and anna" in text
    assert (
        main(["search", str(own), str(own), "--run", run, "--out", str(tmp_path / "s"), "--sheet", "0"]) == 0
    )
    text = capsys.readouterr().out
    assert text.count("left out: 1 file") == 1 and text.count("Anna and anna") == 1
