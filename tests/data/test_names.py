"""Spellings of names: the documented table, the rule's properties, and the same persons from every source."""

import ast
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_image

from reidlib.cli import main
from reidlib.data import load
from reidlib.data.check import check
from reidlib.data.names import describe_spellings, doubt_key, known_names, name_key, read_name, special_person
from reidlib.data.readers.own import list_own_images
from reidlib.data.readers.own.division import number_persons
from reidlib.errors import InputError

ROW = re.compile(r"  ('.*?') +('.*?') +(one|doubt|two)  ")


def relation(first, second):
    if name_key(first) == name_key(second):
        return "one"
    return "doubt" if doubt_key(first) == doubt_key(second) else "two"


@pytest.mark.parametrize("command", ["check", "search"])
def test_the_documented_table_is_the_rule(capsys, command):
    """The twelve pairs are read from the help, so that help and rule cannot differ."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    rows = [match.groups() for line in text.splitlines() if (match := ROW.match(line))]
    assert "".join(map("".join, rows)).isascii()  # so that every terminal can show it
    assert len(rows) == 12 and {row[2] for row in rows} == {"one", "doubt", "two"}
    for first, second, expected in rows:
        assert relation(ast.literal_eval(first), ast.literal_eval(second)) == expected, (first, second)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("0", "0.0", "one"), ("0", "-0.0", "one"), ("-1", "-1,0", "one"), ("-1", "\u22121", "one"),
        ("7", "7,00", "one"), ("7", "7.", "one"), ("7", "\u0667", "one"), ("0007", "007.000", "one"),
        ("NaN", "<NA>", "one"), ("", "NULL", "one"), ("", " ", "one"), ("a b", "a\t b", "one"),
        ("7,000", "7000", "doubt"), ("1_000", "1000", "doubt"), ("1e+05", "100000", "doubt"),
        ("+7", "7", "doubt"), ("NA", "", "doubt"), ("Nan", "nan", "doubt"), ("\ufb01n", "fin", "doubt"),
        ("0" * 20 + "7", "7", "doubt"), ("7.50", "7.5", "doubt"), ("Stra\xdfe", "STRASSE", "doubt"),
        ("7.5", "7", "two"), ("1_1", "11", "two"), ("12345678901234567890", "12345678901234567891", "two"),
        ("9" * 28, "9" * 29, "two"), ("Zo\xeb", "Zoe", "two"), ("-7", "7", "two"), ("inf", "7", "two"),
    ],
)  # fmt: skip
def test_further_pairs(first, second, expected):
    assert relation(first, second) == relation(second, first) == expected


NAMES = st.one_of(
    st.text(max_size=8),
    st.text("0123456789.,-+_e \u0660\uff17\u2212\xa0", max_size=8),
    st.sampled_from(
        ["nan", "NA", "None", "junk", "Zo\xeb", "Zoe\u0308", "Anna", "ANNA", " Anna", "7.0", "-1.0", "0"]
    ),
)


@given(NAMES, NAMES)
def test_the_rule_joins_classes_of_names(first, second):
    """Equal keys are an equivalence, a key is a spelling of its name, and joined names are not in doubt."""
    key = name_key(first)
    assert name_key(key) == key
    for form in ("NFC", "NFD"):
        assert name_key(unicodedata.normalize(form, first)) == key
    assert name_key(f" {first}\xa0") == key
    if key == name_key(second):
        assert doubt_key(first) == doubt_key(second)
        assert special_person(first) == special_person(second)
        assert number_persons([first, second])[first] == number_persons([first, second])[second]
    else:
        numbers = number_persons([first, second])
        assert (
            numbers[first] != numbers[second] or special_person(first) == special_person(second) is not None
        )


@given(st.lists(NAMES, max_size=6))
def test_every_joined_or_doubtful_pair_is_told(names):
    lines = describe_spellings("person", names)
    forms = {unicodedata.normalize("NFC", name) for name in names} - {""}
    told = {relation(a, b) for a in forms for b in forms if a != b and name_key(a)} - {"two"}
    has_maybe = any(name_key(name) and not doubt_key(name) for name in forms)
    assert any("taken for one person" in line for line in lines) == ("one" in told)
    in_doubt = any(relation(a, b) == "doubt" and doubt_key(a) for a in forms for b in forms if a != b)
    assert any("for several persons, which may be one" in line for line in lines) == in_doubt
    assert any("which may mean unknown" in line for line in lines) == has_maybe
    assert all(line.isprintable() for line in lines)


@given(st.integers(-1, 10**15))
def test_a_number_is_one_name_however_it_is_stored(number):
    for array in (
        np.array([number]),
        np.array([float(number)]),
        np.array([str(number)]),
        np.array([b"%d" % number]),
    ):
        assert name_key(read_name(array.tolist()[0])) == str(number)
    assert name_key(f"{number:020.1f}") == str(number)


def test_cells_of_arrays():
    assert known_names("person", [*map(read_name, [float("nan"), None, 7.0, b"Anna", -1, 0.0])]) == (
        ("", "", "7", "Anna", "", ""),
        ["names taken for an unknown person: -1, 0, None, nan"],
    )
    for value in (True, [1], 1j):
        with pytest.raises(InputError, match="texts or numbers"):
            read_name(value)


SPELLINGS = {
    "7": st.sampled_from(["7", "007", "7.0", "\uff17", "7,0"]),
    "12": st.sampled_from(["12", "0012", "12.00", "\u0661\u0662"]),
    "Zo\xeb": st.sampled_from(["Zo\xeb", "Zoe\u0308"]),
    "-1": st.sampled_from(["-1", "-1.0", "junk", "JUNK"]),
    "0": st.sampled_from(["0", "0.0", "00", "distractors"]),
}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_csv_and_a_folder_have_the_same_persons(tmp_path_factory, data):
    """Any mixture of spellings gives the persons that one spelling gives, from a folder and from a CSV."""
    root = tmp_path_factory.mktemp("set")
    rows = []
    for name in SPELLINGS:
        for camera in ("1", "2"):
            person = data.draw(SPELLINGS[name])
            file = (
                root
                / "own"
                / person
                / data.draw(st.sampled_from([camera, f"{camera}.0", f"0{camera}"]))
                / "x.jpg"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_image(file)
            rows.append((name, file))
    lines = [f'"{file.relative_to(root)}","{file.parts[-3]}","{file.parts[-2]}"' for _, file in rows]
    (root / "list.csv").write_text("\n".join(["path,person,camera", *lines]), encoding="utf-8")
    for benchmark in (load("folder", root / "own"), load("csv", root / "list.csv")):
        counts = [
            len(set(split.person_ids[split.person_ids > 0].tolist()))
            for split in (benchmark.train, benchmark.query)
        ]
        assert sum(counts) == 3 and len(set(benchmark.query.camera_ids.tolist())) == 2
        assert sorted(benchmark.gallery.person_ids[benchmark.gallery.person_ids < 1].tolist()) == [
            -1,
            -1,
            0,
            0,
        ]
    for source in (root / "own", root / "list.csv"):
        persons = list_own_images(source).persons
        assert {name_key(name) for name in persons} == {"7", "12", "Zo\xeb", ""}


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["0001", "0010", "-1", "0000"], [1, 10, -1, 0]),
        (["12", "anna", "7", "Bob", "Junk", "00"], [1, 4, 2, 3, -1, 0]),
        (["\uff17", "\uff11"], [2, 1]),  # digits of other scripts were never ids
        (["0" * 19 + "2", "0" * 19 + "1"], [2, 1]),
        (["1.5", "-7", "7"], [2, 1, 3]),
        (["7.0", "12.0", "-1.0", "0.0"], [7, 12, -1, 0]),
    ],
)
def test_ids_of_sets_stay_as_they_were(names, numbers):
    """All but the last, whose floats are now numbers, had these ids before the rule; runs depend on them."""
    assert number_persons(names) == {"": 0, **dict(zip(names, numbers, strict=True))}


def test_persons_without_a_name_are_refused(tmp_path):
    for place in ("a/1/x.jpg", "a/2/x.jpg", "b/1/x.jpg", "b/2/x.jpg", "None/1/x.jpg", "nan/2/y.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / place)
    message = "2 images of 'None', 'nan': None/1/x.jpg, nan/2/y.jpg; rename the folder"
    with pytest.raises(InputError, match=message):
        load("folder", tmp_path)
    assert any(message in problem for problem in check("folder", tmp_path, progress=False).problems)
    images = list_own_images(tmp_path)
    assert images.persons == ("", *"aabb", "")
    assert images.warnings == ("names taken for an unknown person: None, nan",)
