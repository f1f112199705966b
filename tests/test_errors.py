"""Messages of errors."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from reidlib.errors import InputError, one_line


@given(st.text())
def test_a_message_is_one_line_whatever_its_value_contains(value):
    message = str(InputError("a rule", value, "a mend"))
    assert len(message.splitlines()) == 1
    assert not any(unicodedata.category(character) == "Cc" for character in message)


def test_a_message_is_not_endless():
    message = one_line("first " + 100_000 * "x" + " last")
    assert len(message) < 3_100
    assert message.startswith("first x") and message.endswith("x last")


def test_printable_text_stays_as_it_is():
    assert one_line("Zoë, 張 – “x”\udcff") == "Zoë, 張 – “x”\udcff"
