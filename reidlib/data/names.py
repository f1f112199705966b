"""Names of persons and cameras: which spellings are one name, in folders, CSVs and files of features."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal

from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.errors import InputError, shorten

# Each row: two spellings as Python writes them; whether they are one name; why. A test reads this text.
SPELLINGS = r"""spellings of a person or a camera, in folders, CSVs and files of features:
  '7'         '7.0'          one    a number is its value: tables write 7 as 7.0 or 7,00
  '7'         '007'          one    zeros before a number do not count
  '-1'        '-1.0'         one    so -1.0 is junk and 0.0 a distractor, as -1 and 0 are
  '7'         '\uff17'       one    digits of every script
  'Zo\xeb'    'Zoe\u0308'    one    Unicode's two forms of an accent
  'Anna'      ' Anna '       one    blanks around a name do not count
  'Anna Bo'   'Anna\xa0 Bo'  one    blanks within a name, of any kind and number, are one
  ''          'nan'          one    no value, as NaN, None, null, NULL, NaT and <NA> are
  'Anna'      'anna'         doubt  two names that differ in capital letters
  '1000'      '1e3'          doubt  a text that may be a number, as 1_000 and +1000 may
  '7'         '7\u200b'      doubt  characters that cannot be seen
  '7'         'p7'           two    another letter is another name
one: taken for one name. doubt: taken for two names, but a search's threshold does not
count their pairs as different people. Both are told, except Unicode's two forms. What
has no name is unknown to embed and search, and refused to check and train. A person with
a name such as N/A or none, which may mean no value, is told, and unknown to search.
"""
_NO_VALUE = {"", "nan", "NaN", "None", "null", "NULL", "NaT", "<NA>"}
_MAYBE_NO_VALUE = {"nan", "none", "null", "nat", "na", "n/a"}
# A whole number, also as a float with a decimal point or comma; 7,000 may be thousands. Ids are int64.
_NUMBER = re.compile(r"-?\d{1,18}(?:\.0*|,00?)?")
_MAYBE_NUMBER = re.compile(r"[-+]?\d+(?:[_,']\d{3})*(?:[.,]\d*)?(?:e[-+]?\d{1,3})?")
_SPECIAL = {"-1": JUNK, "junk": JUNK, "0": DISTRACTOR, "distractors": DISTRACTOR}


def name_key(name: str) -> str:
    """Return what all spellings of a name have in common, itself one of them; "" for no value."""
    text = " ".join(unicodedata.normalize("NFC", name).split())
    if text in _NO_VALUE:
        return ""
    number = text.replace("\N{MINUS SIGN}", "-")
    return str(int(re.split("[.,]", number)[0])) if _NUMBER.fullmatch(number) else text


def doubt_key(name: str) -> str:
    """Return what all names have in common that may be one although ``name_key`` differs."""
    text = unicodedata.normalize("NFKC", name_key(name)).casefold().replace("\N{MINUS SIGN}", "-")
    text = "".join(c for c in text if not (c.isspace() or unicodedata.category(c) == "Cf"))
    if text.strip("#<>") in _MAYBE_NO_VALUE:
        return ""
    if len(text) <= 28 and _MAYBE_NUMBER.fullmatch(text):  # Decimal is exact up to 28 digits
        text = re.sub(r"[_']|,(?=\d{3}(?!\d))", "", text).replace(",", ".")
        return str(Decimal(text).normalize() + 0)
    return text


def special_person(name: str) -> int | None:
    """Return -1 for a name of junk, 0 for a distractor or no value, and None for a person."""
    key = name_key(name)
    return _SPECIAL.get(key.lower()) if key else DISTRACTOR


def read_name(value: object) -> str:
    """Return the name that a cell of an array holds: a text, bytes, a number or None."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float, type(None))):
        raise InputError("persons and cameras are texts or numbers", repr(value), "store one for each image")
    return str(value)


def known_names(noun: str, names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Replace names without a value, and persons who are junk or nobody, by "", and describe them."""
    is_known = {
        name: special_person(name) is None if noun == "person" else bool(name_key(name))
        for name in set(names)
    }
    unknown = sorted(name for name, known in is_known.items() if name and not known)
    described = [f"names taken for an unknown {noun}: {shorten(map(printable, unknown))}"] if unknown else []
    return tuple(name if is_known[name] else "" for name in names), described


def describe_spellings(noun: str, names: Iterable[str]) -> list[str]:
    """Describe, in a sentence of each kind, the names that are joined or kept apart in doubt."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted({unicodedata.normalize("NFC", name) for name in names} - {""}):
        groups[doubt_key(name)][name_key(name)].append(name)
    groups[""].pop("", None)
    joined = [names for keys in groups.values() for names in keys.values() if len(names) > 1]
    apart = [[names[0] for names in keys.values()] for keys in groups.values() if len(keys) > 1]
    maybe = [names[0] for names in groups[""].values()]
    in_search = " (by search for nobody)" * (noun == "person")
    texts = [
        (f"spellings taken for one {noun}", [" = ".join(map(printable, names)) for names in joined]),
        (
            f"spellings taken for several {noun}s, which may be one",
            [" and ".join(map(printable, names)) for names in apart if names != maybe],
        ),
        (f"names taken for a {noun}{in_search}, which may mean unknown", [*map(printable, maybe)]),
    ]
    return [f"{text}: {shorten(values)}" for text, values in texts if values]


def printable(name: str) -> str:
    """Return a name as it can be told apart in a message: as an ASCII literal if not all of it shows."""
    return name if name.isprintable() and name == " ".join(name.split()) else ascii(name)
