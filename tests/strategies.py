"""Any file name, and any value that a user may give: what several tests draw from."""

import os

from hypothesis import strategies as st

# Any name that a file can have: bytes, of which Python makes surrogates where they are not UTF-8.
FILE_NAMES = (
    st.binary(min_size=1, max_size=255)
    .map(lambda data: data.translate(bytes.maketrans(b"/\0", b"__")))
    .filter(lambda data: data not in (b".", b".."))
    .map(os.fsdecode)
)
# Any value of JSON or YAML, with texts that look like others.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([
        "false", "no", "Off", "0", "true", "4.0", "5", "1e3", "nan", "inf", "007", "[1]", "[1, 6]", "{}",
        '{"a": "b"}', "none", "paper", "",
    ]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
