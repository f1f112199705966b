"""Values of users: what is converted to a declared type, and that everything else is refused by name."""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import VALUES

from reidlib.errors import InputError
from reidlib.training.config import Augmentation, JLMLConfiguration, PyramidConfiguration, Recipe
from reidlib.training.dynamic import Balancing
from reidlib.values import check_fields, dotted_fields, read_value, set_fields

MODES = ("paper", "official", "off")
COUNT = range(1, 2**31)
# Type, value and what it is read as; a value of the type itself is in the property tests.
CONVERTED = [
    *((bool, text, False) for text in ("false", "False", "FALSE", "no", "No", "off", "0", " false ", "0.0")),
    *((bool, text, True) for text in ("true", "TRUE", "yes", "on", "1")),
    (bool, 0, False), (bool, 1, True), (bool, 1.0, True),
    (int, 4.0, 4), (int, "4", 4), (int, " 4 ", 4), (int, "4\x1f", 4), (int, "4.0", 4),
    (int, "1e3", 1000), (int, "-2", -2),
    (COUNT, "1", 1), (COUNT, 5.0, 5), (range(3), 0.0, 0),
    (float, "5e-4", 5e-4), (float, "2", 2), (float, ".5", 0.5),
    (MODES, False, "off"), (MODES, "no", "off"), (Literal["on", "off"], True, "on"),
    (Path, 2024, "2024"), (Path, Path("a") / "b", "a/b"), (Path, None, ""),
    (tuple[int, ...], [1, 6.0], (1, 6)), (tuple[int, ...], "[1, 6]", (1, 6)), (tuple[int, ...], "[]", ()),
    (tuple[int, ...] | None, None, None), (tuple[int, int], [64, "32"], (64, 32)),
    (dict[str, Path], '{"viper": "/data/VIPeR"}', {"viper": "/data/VIPeR"}),
    (dict[str, Path], {"viper": 2024}, {"viper": "2024"}),
    (Augmentation, {"flip": "0.5", "pad": 2.0}, Augmentation(0.5, 2)),
]  # fmt: skip
# Type, value and words of the refusal.
REFUSED = [
    *((bool, value, "True or False") for value in ("", "nein", "n", "2", 2, 0.5, None, [], math.nan)),
    *((int, value, "a whole number") for value in (True, "4.5", 4.5, "four", math.nan, math.inf, 1e300)),
    *((int, value, "a whole number") for value in ("1_000", "٤", "0x4", "9" * 5000, "", [4])),
    (COUNT, 0, "a whole number of at least 1; got 0"), (range(1, 101), 101, "from 1 to 100; got 101"),
    *((float, value, "a finite number") for value in (True, math.nan, -math.inf, "nan", "inf", "1,5", None)),
    (str, 2024, "a text; got 2024; write it in quotes, with papermill as -r"),
    (str, None, "a text; got None"),
    (MODES, "papre", "one of paper, official, off; got 'papre'; did you mean paper?"),
    (MODES, True, "one of paper"), (MODES, None, "one of paper"), (MODES, ["off"], "one of paper"),
    (("", "none"), "part", "one of empty, none; got 'part'"),
    *((Path, value, "the path of a file or folder") for value in (1000.0, True, -7, [], math.inf)),
    (tuple[int, ...], 5, "a sequence of whole numbers"), (tuple[int, ...], "(1, 6)", "sequence"),
    (tuple[int, ...], "[1, 6", "sequence"), (tuple[int, ...], {"1": 6}, "sequence"),
    (tuple[int, ...], [1, "x"], r"x\[1\] is a whole number; got 'x'"), (tuple[int, int], [1], "2 of them"),
    (dict[str, Path], "{", "a dictionary"), (dict[str, Path], "[]", "a dictionary"),
    (dict[str, Path], '{"a": "1", "a": "2"}', "a dictionary"), (dict[str, Path], {1: "a"}, "a dictionary"),
    (dict[str, Path], {"a": 1e3}, r"x\['a'\] is the path"), (dict[str, Path], "[" * 100_000, "a dictionary"),
    (Augmentation, {"flop": 1}, "colour_jitter, erasing; got 'flop'; did you mean flip?"),
    (Augmentation, "none", "of type Augmentation"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("kind", "value", "expected"), CONVERTED)
def test_what_is_certain_is_converted(kind, value, expected):
    result = read_value("x", value, kind)
    assert result == expected
    assert type(result) is type(expected)
    assert read_value("x", result, kind) == result


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED)
def test_everything_else_is_refused_by_name_in_one_line(kind, value, words):
    with pytest.raises(InputError, match=words) as refusal:
        read_value("x", value, kind)
    text = str(refusal.value)
    assert text.startswith(("x", "a field of")) and "\n" not in text and len(text) < 400


@pytest.mark.parametrize("name", ["007", "0_7", "+7", "0x7", "0b111"])
def test_a_number_of_which_a_folder_has_another_spelling_is_refused(tmp_path, name):
    """papermill makes 7 of all of them, so that the text is lost."""
    assert read_value("runs", 7, Path) == "7"
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"may be {name.replace('+', '[+]')}; got 7; .*-r in place of -p"):
        read_value("runs", 7, Path)
    assert read_value("runs", "7", Path) == "7"
    (tmp_path / "011").mkdir()
    with pytest.raises(InputError, match="may be 011"):  # in YAML
        read_value("runs", 9, Path)


KINDS = {
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int,
    COUNT: lambda value: type(value) is int and value >= 1,
    float: lambda value: type(value) in (int, float) and math.isfinite(value),
    str: lambda value: isinstance(value, str),
    MODES: lambda value: value in MODES,
    Path: lambda value: isinstance(value, str),
    tuple[int, ...]: lambda value: type(value) is tuple and all(type(each) is int for each in value),
    dict[str, Path]: lambda value: all(isinstance(each, str) for pair in value.items() for each in pair),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(value=VALUES)
def test_any_value_is_of_the_type_or_refused(kind, value):
    try:
        result = read_value("x", value, kind)
    except InputError as refusal:
        assert str(refusal).startswith("x") and "\n" not in str(refusal)
        return
    assert KINDS[kind](result)
    assert read_value("x", result, kind) == result
    if type(value) is type(result) and kind not in (MODES, dict[str, Path]):
        assert value == result  # nothing of the type itself is changed


CONFIGURATIONS = {
    Augmentation: {}, Recipe: {"epochs": 1}, Balancing: {}, JLMLConfiguration: {}, PyramidConfiguration: {}
}  # fmt: skip
FIELDS = [(kind, field.name) for kind in CONFIGURATIONS for field in fields(kind)]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name in FIELDS])
@given(value=VALUES)
def test_a_field_has_its_type_or_is_refused(kind, name, value):
    """A text that is no truth value never switches anything on, and JSON says what the field is."""
    try:
        configuration = kind(**{**CONFIGURATIONS[kind], name: value})
    except InputError as refusal:
        assert "\n" not in str(refusal)
        return
    result = getattr(configuration, name)
    assert read_value(name, result, get_type_hints(kind)[name]) == result
    if get_type_hints(kind)[name] is bool:
        assert type(result) is bool
    json.dumps(result, default=vars, allow_nan=False)


def test_fields_keep_values_of_their_types():
    """A whole number in place of 0.0 is part of the identity of runs that exist."""
    assert str(Augmentation(flip=0, pad=4)).startswith("Augmentation(flip=0, pad=4, erase=0.0, ")
    assert JLMLConfiguration(multi_loss="false") == JLMLConfiguration(multi_loss=False)
    with pytest.raises(InputError, match="nesterov is True or False; got 'maybe'"):
        Recipe(epochs=1, nesterov="maybe")


def test_a_dataclass_of_ones_own_is_checked():
    @dataclass(frozen=True)
    class Settings:
        share: float = 0.5
        mode: Literal["a", "b"] | None = None

        def __post_init__(self):
            check_fields(self)

    assert Settings("0.25").share == 0.25
    with pytest.raises(InputError, match="mode is one of a, b; got 'c'"):
        Settings(mode="c")


@dataclass(frozen=True)
class Inner:
    share: float = 0.5
    marks: tuple[float, ...] = ()

    def __post_init__(self):
        check_fields(self)
        if self.share > 1:
            raise InputError("share is at most 1", self.share, "use less")


@dataclass(frozen=True)
class Outer:
    count: int | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self):
        check_fields(self)


def test_fields_are_set_by_names_with_dots():
    outer = Outer(3)
    assert dotted_fields(outer) == {"count": 3, "inner.share": 0.5, "inner.marks": ()}
    changed = set_fields(outer, {"inner.marks": "[0.5, 1]", "count": "None", "another": "1"})
    assert changed == Outer(None, Inner(0.5, (0.5, 1.0)))
    assert set_fields(outer.inner, {"x.share": "1"}, "x.") == Inner(1.0)
    assert outer == Outer(3)  # unchanged
    for settings, words in (
        ({"inner.share": "2"}, "share is at most 1; got 2.0"),
        ({"inner.share": "half"}, "inner.share is a finite number; got 'half'"),
        ({"inner.share": "none"}, "inner.share is a finite number"),
        ({"count": "1.5"}, "count is a whole number; got '1.5'"),
        ({"count": "2147483648"}, "count is a whole number below 2,147,483,648"),
        ({"inner.marks": "(1, 2)"}, r"a sequence of numbers; got '\(1, 2\)'; write a list such as \["),
    ):
        with pytest.raises(InputError, match=words):
            set_fields(outer, settings)


@given(st.integers(-(10**6), 10**6))
def test_one_number_has_one_spelling(number):
    """The JSON of a value, which a run's hash is made of, does not depend on how the value was written."""
    spellings = {str(number), f"{number}.0", f" {number} ", f"{number}e0"}
    made = {
        json.dumps(set_fields(Inner(), {"marks": f"[{text}]"}).marks) for text in {str(number), f"{number}.0"}
    }
    assert len(made) == 1
    assert len({json.dumps(set_fields(Factor(), {"factor": text}).factor) for text in spellings}) == 1
    kept = Factor(number)  # a row may have written a whole number, which is part of its identity
    assert all(type(set_fields(kept, {"factor": text}).factor) is int for text in spellings)


@dataclass(frozen=True)
class Factor:
    factor: float = 0.5

    def __post_init__(self):
        check_fields(self)
