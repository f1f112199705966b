"""Scores by query as sums by person, which is all that an interval needs, and these as text."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping

import numpy as np

from reidlib.errors import InputError

RANKS, KINDS = (1, 5, 10, 20), ("step", "trapezoid")
# Measures whose sums are kept by person.
BY_PERSON = (*(f"R{rank}" for rank in RANKS), "mAP (step)", "mAP (trapezoid)")
_BY_QUERY = ("average_precision", "first_match_rank")


def sums_by_person(branch: Mapping) -> dict[str, np.ndarray]:
    """Return a branch's sums over the queries of each person.

    Args:
        branch: A branch's scores: with "by_person", or with values by query and "query_person_ids".

    Returns:
        "persons", their ids (P,), "queries", their numbers of queries with a match, and for each measure of
        ``BY_PERSON`` the sums of these queries' shares.

    Raises:
        InputError: If values, ids and ranks are not of equally many queries.
    """
    if "by_person" in branch:
        return {name: unpack(text) for name, text in branch["by_person"].items()}
    first_q = np.array(branch["step"]["first_match_rank"])
    values = {f"R{rank}": (first_q <= rank).astype(float) for rank in RANKS}
    values |= {f"mAP ({kind})": np.array(branch[kind]["average_precision"], dtype=float) for kind in KINDS}
    ids_q = np.array(branch.get("query_person_ids") or range(len(first_q)))
    counts = dict.fromkeys(len(row) for row in (ids_q, *values.values()))
    if len(counts) > 1:
        value = f"{', '.join(map(str, counts))} queries"
        raise InputError("all scores of a branch are over the same queries", value, "evaluate the run again")
    valid_q = first_q > 0
    persons, person_q = np.unique(ids_q[valid_q], return_inverse=True)
    sums = {name: np.bincount(person_q, row[valid_q], len(persons)) for name, row in values.items()}
    return {"persons": persons, "queries": np.bincount(person_q, minlength=len(persons)), **sums}


def pack(values: np.ndarray) -> str:
    """Return an array as text: its type, and in hexadecimal the first byte of each number, the second, …."""
    # So ordered, and not compressed one by one, the arrays of a line are two fifths smaller together.
    if not np.array_equal(values, values.astype(np.int32)):
        kind = "<f4"
    else:
        kind = "<u2" if values.min(initial=0) >= 0 and values.max(initial=0) < 2**16 else "<i4"
    content = values.astype(kind).view(np.uint8).reshape(-1, int(kind[2]))
    return f"{kind}.{content.T.tobytes().hex()}"


def unpack(text: str) -> np.ndarray:
    """Return the array of a text of ``pack``, or of format 1: type, ":", and compressed bytes in base 64."""
    kind, separator, data = text[:3], text[3:4], text[4:]
    if kind not in ("<u2", "<i4", "<f4"):
        raise ValueError(f"numbers of the kind {text[:9]}")
    if separator == ".":
        content = np.frombuffer(bytes.fromhex(data), np.uint8).reshape(int(kind[2]), -1).T.tobytes()
    else:
        try:
            content = zlib.decompress(base64.b64decode(data, validate=True))
        except binascii.Error as error:
            raise ValueError(str(error)) from error
    return np.frombuffer(content, kind).astype(float if kind == "<f4" else np.int64)


def without_queries(scores: dict) -> dict:
    """Return scores whose branches hold sums by person instead of values by query."""
    branches = {}
    for name, branch in scores["branches"].items():
        by_person = sums_by_person({**branch, "query_person_ids": scores.get("query_person_ids")})
        small = leave_out(branch)
        small["trapezoid"].pop("cmc", None)  # that of "step"
        branches[name] = small | {"by_person": {key: pack(value) for key, value in by_person.items()}}
    return {key: value for key, value in scores.items() if key != "query_person_ids"} | {"branches": branches}


def leave_out(value: dict, names: tuple[str, ...] = _BY_QUERY) -> dict:
    return {k: leave_out(v, names) if isinstance(v, dict) else v for k, v in value.items() if k not in names}
