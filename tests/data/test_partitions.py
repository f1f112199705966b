import json
from importlib.resources import files

import pytest

from reidlib.data.readers import partitions as module
from reidlib.data.readers.partitions import (
    Partitions,
    draw_partitions,
    read_partitions,
    standard_partitions,
    write_partitions,
)
from reidlib.errors import InputError

OFFICIAL = [("cuhk01", 971, 486), ("cuhk01", 971, 100), ("viper", 632, 316)]
OWN = Partitions("viper", 6, ((1, 2, 6), (5, 3, 1)))


def refusal(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("benchmark", "persons", "test_persons"), OFFICIAL)
def test_what_is_stored_is_what_is_drawn(benchmark, persons, test_persons):
    stored_partitions = files(module) / f"{benchmark}_{test_persons}.json"
    drawn_partitions = draw_partitions(benchmark, persons, test_persons)
    assert json.loads(stored_partitions.read_text()) == {
        "benchmark": benchmark,
        "persons": persons,
        "test": [list(places) for places in drawn_partitions.test],
        "sha256": drawn_partitions.checksum,
    }
    assert standard_partitions(benchmark, persons, test_persons) == drawn_partitions
    assert len(set(drawn_partitions.test)) == 10
    for places in drawn_partitions.test:
        assert len(places) == len(set(places)) == test_persons
        assert places[0] >= 1 and places[-1] <= persons


def test_stored_partitions_never_change():
    """The partitions never change, because scores of different versions of this package are compared."""
    assert [
        (partitions.checksum[:16], partitions.test[0][:6], partitions.test[9][-3:])
        for partitions in map(_stored, OFFICIAL)
    ] == [
        ("65fd336a8009e4bf", (1, 2, 3, 4, 5, 7), (963, 964, 969)),
        ("0dedceed3912e51f", (21, 27, 29, 35, 81, 85), (952, 965, 968)),
        ("8c1aa082e66c9df3", (1, 4, 5, 6, 7, 10), (623, 631, 632)),
    ]


def _stored(size):
    return standard_partitions(*size)


def test_only_the_official_sizes_are_stored():
    names = {file.name for file in files(module).iterdir() if file.name.endswith(".json")}
    assert names == {f"{benchmark}_{test_persons}.json" for benchmark, _, test_persons in OFFICIAL}


def test_a_drawing_follows_from_sha256_alone():
    # The two smallest of four digests, from the shell:
    # printf 'viper 4 persons, 2 for testing, trial 0: 1' | sha256sum
    assert draw_partitions("viper", 4, 2).test == (
        *((2, 4), (3, 4), (2, 4), (1, 4), (3, 4)),
        *((1, 2), (2, 3), (1, 4), (1, 4), (1, 4)),
    )
    assert draw_partitions("cuhk01", 4, 2).test[:4] == ((2, 3), (1, 4), (2, 4), (1, 2))


def test_a_stored_size_with_other_persons_is_drawn():
    assert standard_partitions("viper", 631, 316) == draw_partitions("viper", 631, 316)
    assert standard_partitions("viper", 631, 316).test[0] != standard_partitions("viper", 632, 316).test[0]


def test_every_person_is_tested_about_as_often_as_any_other():
    counts = [0] * 60
    for test_persons in range(20, 40):
        for places in draw_partitions("cuhk01", 60, test_persons).test:
            for place in places:
                counts[place - 1] += 1
    # 200 trials, each with odds around a half: mean 98.3, standard deviation about 7.
    assert sum(counts) == 10 * sum(range(20, 40))
    assert min(counts) > 70 and max(counts) < 127


@pytest.mark.parametrize("test_persons", [0, -1, 6, 7, "3", 2.0, True])
def test_both_sides_have_a_person(test_persons):
    text = refusal(draw_partitions, "viper", 6, test_persons)
    assert f"test_persons={test_persons!r} of 6 persons" in text and "from 1 to 5" in text


def test_one_person_cannot_be_divided():
    assert refusal(draw_partitions, "viper", 1, 1).endswith("unpack the archive completely")


def test_own_partitions_are_written_and_read(tmp_path):
    path = tmp_path / "own.json"
    write_partitions(path, OWN)
    assert read_partitions(path, "viper", 6) == OWN
    assert OWN.test == ((1, 2, 6), (1, 3, 5)) and OWN.test_persons == 3
    content = json.loads(path.read_text())
    content["test"] = [[6, 2, 1], [3, 1, 5]]  # the order of a list says nothing
    path.write_text(json.dumps(content))
    assert read_partitions(path, "viper", 6) == OWN
    del content["sha256"]
    path.write_text(json.dumps(content | {"source": "a paper", "test": [[1, 2]]}))
    assert read_partitions(path, "viper", 6).test == ((1, 2),)


def test_the_example_of_the_docstring_is_such_a_file(tmp_path):
    begin, end = module.__doc__.index("    {"), module.__doc__.index("    }") + 5
    path = tmp_path / "example.json"
    path.write_text(module.__doc__[begin:end])
    example = read_partitions(path, "viper", 6)
    assert example == OWN
    # And the call that makes one makes the same.
    call = 'write_partitions(Path("mine.json"), Partitions("viper", 6, ((1, 2, 6), (1, 3, 5))))'
    assert call in module.__doc__
    write_partitions(path, Partitions("viper", 6, ((1, 2, 6), (1, 3, 5))))
    assert read_partitions(path, "viper", 6) == example


def test_a_changed_list_does_not_fit_its_checksum(tmp_path):
    path = tmp_path / "own.json"
    write_partitions(path, OWN)
    path.write_text(path.read_text().replace("[1, 2, 6]", "[1, 2, 5]"))
    text = refusal(read_partitions, path, "viper", 6)
    assert str(path) in text and OWN.checksum in text and "remove its sha256" in text


@pytest.mark.parametrize("change", [("[1, 4, 5,", "[2, 4, 5,"), ('"sha256"', '"sha265"'), ("]", "")])
def test_a_damaged_stored_file_is_refused(tmp_path, monkeypatch, change):
    stored = (files(module) / "viper_316.json").read_text()
    assert stored.count(change[0]) >= 1
    (tmp_path / "viper_316.json").write_text(stored.replace(*change, 1))
    monkeypatch.setattr(module, "files", lambda name: tmp_path)
    assert "viper_316.json" in refusal(standard_partitions, "viper", 632, 316)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is JSON"),
        ("[]", "not an object with benchmark"),
        ('{"benchmark": "viper", "persons": 6}', "not an object with benchmark"),
        ('{"benchmark": "viper", "persons": "6", "test": [[1]]}', "not whole numbers"),
        ('{"benchmark": "viper", "persons": 6, "test": [["1"]]}', "not whole numbers"),
        ('{"benchmark": "viper", "persons": 6, "test": [[1.0]]}', "not whole numbers"),
        ('{"benchmark": "viper", "persons": 6, "test": [1]}', "not whole numbers"),
        ('{"benchmark": "viper", "persons": 6, "test": "12"}', "not whole numbers"),
        ('{"benchmark": "viper", "persons": 6, "test": []}', "the same number of test persons"),
        ('{"benchmark": "viper", "persons": 6, "test": [[]]}', "the same number of test persons"),
        ('{"benchmark": "viper", "persons": 6, "test": [[1, 2], [3]]}', "the same number of test persons"),
        ('{"benchmark": "viper", "persons": 3, "test": [[1, 2, 3]]}', "at least one person for training"),
        ('{"benchmark": "viper", "persons": 6, "test": [[1, 2], [4, 4]]}', "4 twice in trial 1"),
        ('{"benchmark": "viper", "persons": 6, "test": [[0, 2], [3, 7]]}', "got 0, 7"),
        ('{"benchmark": "cuhk01", "persons": 6, "test": [[1]]}', "for cuhk01 with 6"),
        ('{"benchmark": "viper", "persons": 632, "test": [[1]]}', "for viper with 632"),
    ],
)
def test_other_content_is_refused(tmp_path, content, words):
    path = tmp_path / "own.json"
    path.write_text(content)
    text = refusal(read_partitions, path, "viper", 6)
    assert words in text and str(path) in text


def test_an_absent_file_suggests_its_neighbour(tmp_path):
    write_partitions(tmp_path / "craft.json", OWN)
    text = refusal(read_partitions, tmp_path / "kraft.json", "viper", 6)
    assert f"did you mean {tmp_path / 'craft.json'}?" in text
    assert "No such file" in refusal(read_partitions, tmp_path / "a" / "b.json", "viper", 6)
