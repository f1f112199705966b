"""What the deletion test found, as rows of tables and in words."""

from __future__ import annotations

from collections.abc import Mapping

from reidlib.visual.attention.deletion import Deletion


def sentence(name: str, found: Mapping[str, Deletion]) -> str:
    """For which kinds of a network's parts the maps beat random ones, and foreign ones, in words."""
    against = {"random ones": {kind: one.gain for kind, one in found.items()}}
    if foreign := {kind: gain for kind, one in found.items() if (gain := one.gain_over_foreign) is not None}:
        against["another query's"] = foreign
    said = [] if foreign else ["one pair has no other query's map to compare with"]
    for other, gains in against.items():
        beaten = [kind for kind, gain in gains.items() if gain.low > 0]
        left = [f"{kind} ({gain})" for kind, gain in gains.items() if kind not in beaten]
        if not left:
            said.append(f"the maps beat {other} for every kind of parts ({', '.join(beaten)})")
        else:
            begin = f"for {', '.join(beaten)}" if beaten else "for no kind of parts"
            said.append(f"the maps beat {other} {begin}, **not clearly for {', '.join(left)}**")
    return f"{name}: {'; '.join(said)}."


def better_than_random(found: Mapping[str, Deletion]) -> str:
    """For how many kinds of parts the whole interval lies above 0, as "5 of 6"."""
    return f"{sum(one.gain.low > 0 for one in found.values())} of {len(found)}"


def score_rows(name: str, found: Mapping[str, Deletion]) -> list[dict]:
    """The areas of a network's kinds of parts as rows of a table."""
    return [
        {
            "network": name,
            "parts": kind,
            "area, attended": f"{one.areas[0]:.3f}",
            "area, random": f"{one.areas[1]:.3f}",
            "random − attended, × 100 [95 %]": str(one.gain),
            "better than random": "yes" if one.gain.low > 0 else "not clearly",
            "another query's − attended, × 100 [95 %]": str(one.gain_over_foreign or "–"),
        }
        for kind, one in found.items()
    ]


def stride_rows(name: str, by_stride: Mapping[int, Mapping[str, Deletion]]) -> list[dict]:
    """What ``deletion_by_kind`` found with maps of each stride, as rows: over random · over foreign maps."""
    return [
        {
            "network": name,
            "stride": stride,
            **{kind: f"{one.gain} · {one.gain_over_foreign or '–'}" for kind, one in kinds.items()},
        }
        for stride, kinds in by_stride.items()
    ]


def stride_sentence(name: str, by_stride: Mapping[int, Mapping[str, Deletion]]) -> str:
    """Which stride's maps gain most over random orders, and over foreign maps, for each kind of parts.

    Strides whose difference to random orders lies in the best one's interval are named with it.
    """
    said = []
    for kind in next(iter(by_stride.values())):
        gains = {stride: kinds[kind].gain for stride, kinds in by_stride.items()}
        best = max(gains, key=lambda stride: gains[stride].mean)
        close = [
            str(other) for other, gain in gains.items() if other != best and gain.mean >= gains[best].low
        ]
        words = f"{kind}: **{best}**" + (f" (not told apart from {', '.join(close)})" if close else "")
        foreign = {stride: kinds[kind].gain_over_foreign for stride, kinds in by_stride.items()}
        if None not in foreign.values():
            words += f", against another query's map {max(foreign, key=lambda stride: foreign[stride].mean)}"
        said.append(words)
    return f"{name}, stride of the largest difference to random orders: {'; '.join(said)}."
