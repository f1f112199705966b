"""The names of the profiles, for those who need no more: `sizes.PROFILES` says what they mean."""

from __future__ import annotations

import difflib

from reidlib.data.registry import parse
from reidlib.errors import InputError

# Sizes of the embedded benchmark that the profiles render; "paper" wants a real benchmark's folder.
SYNTHETIC_SIZES = {"smoke": "smoke", "quick": "quick", "full": "full", "paper": None}
PROFILE_NAMES = tuple(SYNTHETIC_SIZES)


def check_profile(name: str) -> None:
    """Raises InputError for an unknown profile."""
    if name not in PROFILE_NAMES:
        near = difflib.get_close_matches(str(name), PROFILE_NAMES, 1) or PROFILE_NAMES[1:2]
        raise InputError(f"a profile is one of {', '.join(PROFILE_NAMES)}", repr(name), f"try {near[0]!r}")


def check_data(profile: str, benchmark: str, data_root: object) -> None:
    """Raises InputError where a folder is needed and not given, and for an unknown profile."""
    check_profile(profile)
    name, _ = parse(benchmark)
    if data_root:
        return
    if name != "synthetic":
        raise InputError(
            f"benchmark {benchmark!r} is read from a folder",
            "none",
            "give --data-root (in a notebook: data_root)",
        )
    if SYNTHETIC_SIZES[profile] is None:
        raise InputError(
            f"profile {profile!r} trains on a real benchmark's folder",
            "none",
            "give --benchmark and --data-root (in a notebook: benchmark and data_root)",
        )
