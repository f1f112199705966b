"""Do attention maps mean something? Blank what they call important, and something at random: what costs more?

Patches of an image are blanked one after the other, from the most attended on, and the similarity to the
other image is measured on the way; the same in random orders among the same patches. A map that means
something loses the similarity sooner: the area under its curve is smaller. Curves begin and end alike.
A map that always points at the middle beats random ones, too. That it has seen the image is shown only by
beating another image's map of the same part, a foreign one.

A blanked patch gets the image's mean colour: that says least about clothes and keeps exposure and tint, while
black or grey would be a new edge and look like clothing. It still is an image such as no training showed.

Source: Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018
(the deletion metric; there from the whole image and of a class's probability).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.analysis.statistics import Interval, paired
from reidlib.data.augmentation import normalise_images
from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart
from reidlib.ranking.distances import full_float32
from reidlib.visual.attention.maps import pixel_rows, places_by_kind
from reidlib.visual.attention.pairs import attention_in_batches

# Patches are squares of about an eighth of the image's width: finer than the maps, whose cells lie with their
# centres on, and not between, their first pixels.
PATCHES_ACROSS = 8
_AT_ONCE = 128  # blanked images that are embedded together


class Deletion(NamedTuple):
    """Similarity of N pairs while more and more of the part is blanked."""

    shares_s: np.ndarray  # of the part's patches that are blanked, 0 to 1
    attended_ns: np.ndarray  # from the most attended patch on
    random_ns: np.ndarray  # in random orders, their mean
    persons_n: np.ndarray  # whom each pair's image shows
    foreign_ns: np.ndarray | None = None  # in the order of another pair's map

    @property
    def areas(self) -> tuple[float, float]:
        """Areas under the mean curves: attended, random. A curve that stays at 1 has the area 1."""
        return float(self._areas(self.attended_ns).mean()), float(self._areas(self.random_ns).mean())

    @property
    def gain(self) -> Interval:
        """Random area − attended area, in hundredths of similarity; above 0, the attention means something.

        The 95 % interval is over pairs, all of a person drawn together (``analysis.statistics.paired``).
        """
        return self._gain(self.random_ns)

    @property
    def gain_over_foreign(self) -> Interval | None:
        """The same against the foreign map's area: above 0, the attention has seen the image."""
        return None if self.foreign_ns is None else self._gain(self.foreign_ns)

    def _gain(self, curves_ns: np.ndarray) -> Interval:
        differences_n = self._areas(curves_ns) - self._areas(self.attended_ns)
        return paired(100 * differences_n[None], self.persons_n)

    def _areas(self, curves_ns: np.ndarray) -> np.ndarray:
        return np.trapezoid(curves_ns, self.shares_s, axis=1)


def deletion_curves(
    similarity: Callable[[Tensor, Tensor], Tensor],
    images_nchw: Tensor,
    maps_nhw: np.ndarray,
    rows_n: Sequence[tuple[int, int]],
    persons_n: np.ndarray,
    *,
    foreign_nhw: np.ndarray | None = None,
    steps: int = 8,
    orders: int = 3,
    seed: int = 0,
) -> Deletion:
    """The deletion test of any similarity.

    similarity: blanked images uint8 (B, 3, H, W) and which of the pairs each is of (B,) -> (B,) float.
    maps_nhw: attention on each pair's image. rows_n: of each, the rows ``(first, past the last)`` that are
    blanked. foreign_nhw: of each, another image's map. steps: shares 0, 1/steps … 1. orders: random ones for
    each pair; the same seed gives the same.

    Cost: N · (2 + (steps − 1) · (1 + orders)) images through ``similarity``, N · (steps − 1) more with
    foreign maps; at most 128 are made at once. Raises InputError for shapes that do not fit, and less than
    one step or order.
    """
    if not 0 < len(images_nchw) == len(maps_nhw) == len(rows_n) == len(persons_n):
        rule = "each of one or more pairs has an image, a map, its rows and a person"
        found = f"{len(images_nchw)}, {len(maps_nhw)}, {len(rows_n)} and {len(persons_n)}"
        raise InputError(rule, found, "give one each")
    if maps_nhw.shape[1:] != images_nchw.shape[2:]:
        found = f"{maps_nhw.shape[1:]} for {tuple(images_nchw.shape[2:])}"
        raise InputError("a map has its image's size", found, "scale it")
    if steps < 1 or orders < 1:
        raise InputError("one step and one random order at least", f"{steps} and {orders}", "ask for more")
    generator = np.random.default_rng(seed)
    shares_s = np.linspace(0, 1, steps + 1)
    foreign_nhw = [None] * len(maps_nhw) if foreign_nhw is None else foreign_nhw
    fill_nc11 = images_nchw.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    blanked = (
        (pair, mask_hw)
        for pair, maps in enumerate(zip(maps_nhw, foreign_nhw, strict=True))
        for mask_hw in _masks(maps, rows_n[pair], shares_s, orders, generator)
    )
    values: list[np.ndarray] = []
    while batch := list(islice(blanked, _AT_ONCE)):
        pairs, masks = zip(*batch, strict=True)
        which_b = torch.tensor(pairs, device=images_nchw.device)
        blank_b1hw = torch.from_numpy(np.stack(masks))[:, None].to(images_nchw.device)
        images_bchw = torch.where(blank_b1hw, fill_nc11[which_b], images_nchw[which_b])
        values.append(similarity(images_bchw, which_b).cpu().double().numpy())
    # Of each pair the attended order with both ends, then the foreign and the random ones without.
    all_values = np.concatenate(values).reshape(len(images_nchw), -1)
    attended_ns = all_values[:, : steps + 1]
    inner_nos = all_values[:, steps + 1 :].reshape(len(images_nchw), -1, steps - 1)  # o: orders

    def with_ends(inner_ns: np.ndarray) -> np.ndarray:
        return np.concatenate([attended_ns[:, :1], inner_ns, attended_ns[:, -1:]], axis=1)

    random_ns = with_ends(inner_nos[:, -orders:].mean(1))
    foreign_ns = None if foreign_nhw[0] is None else with_ends(inner_nos[:, 0])
    return Deletion(shares_s, attended_ns, random_ns, np.asarray(persons_n), foreign_ns)


def _masks(
    maps: tuple[np.ndarray, np.ndarray | None],
    rows: tuple[int, int],
    shares_s: np.ndarray,
    orders: int,
    generator: np.random.Generator,
) -> Iterator[np.ndarray]:
    """What is blanked of one image, bool ``(H, W)``: by its own map with both ends, which are alike for all,
    then the shares between by the foreign map, where there is one, and in random orders."""
    own_hw, foreign_hw = maps
    patches_hw = _patches(own_hw.shape, rows)
    of_rows = patches_hw[slice(*rows)].ravel()
    sizes = np.bincount(of_rows)
    count = len(sizes)
    # Ties, as of all that is clipped at zero, in random order too: no patch is preferred for its place.
    chance = generator.permutation(count)
    ranked = [
        np.lexsort((chance, -np.bincount(of_rows, map_hw[slice(*rows)].ravel()) / sizes))
        for map_hw in (own_hw, foreign_hw)
        if map_hw is not None
    ]
    ranked += [generator.permutation(count) for _ in range(orders)]
    for number, order in enumerate(ranked):
        place = np.empty(count + 1, np.int64)
        place[order], place[count] = np.arange(count), count  # the last: pixels outside the rows
        for share in shares_s[1:-1] if number else shares_s:
            yield place[patches_hw] < round(share * count)


def _patches(shape: tuple[int, int], rows: tuple[int, int]) -> np.ndarray:
    """For every pixel (H, W) the number of its patch; those outside the rows have the one past the last."""
    width = shape[1]
    side = max(1, width // PATCHES_ACROSS)
    first, stop = rows
    across, down = max(1, width // side), max(1, round((stop - first) / side))
    column_w = np.arange(width) * across // width
    row_h = np.arange(stop - first) * down // (stop - first)
    patches_hw = np.full(shape, across * down)
    patches_hw[first:stop] = row_h[:, None] * across + column_w
    return patches_hw


def deletion_by_kind(
    model: nn.Module,
    images_nchw: Tensor,
    others_nd: Tensor,
    persons_n: np.ndarray,
    *,
    steps: int = 6,
    orders: int = 3,
    stride: int | None = None,
) -> Mapping[str, Deletion]:
    """The deletion test of a network's attention, for each kind of its parts ("global", "level 2").

    images_nchw: uint8, on the model's device; others_nd: the matching feature each is compared with;
    persons_n: whom each image shows. Of every kind each pair tests one part, in turn from top to bottom, so
    that kinds of many parts cost what others do. The foreign map is another pair's, of another person
    where there is one; a pair alone has none. steps, orders and cost as in ``deletion_curves``, for each
    kind. Raises InputError like it and ``part_attention``.
    """
    height = images_nchw.shape[2]
    parts = model.feature_parts(height)
    maps_nphw = attention_in_batches(model, images_nchw, others_nd, stride=stride)
    other_n = _another(persons_n)
    found = {}
    for kind, of_kind in places_by_kind(parts).items():
        places_n = [of_kind[pair % len(of_kind)] for pair in range(len(images_nchw))]
        found[kind] = deletion_curves(
            part_similarity(model, others_nd, [parts[place] for place in places_n]),
            images_nchw,
            maps_nphw[np.arange(len(places_n)), places_n],
            [pixel_rows(parts[place], height) for place in places_n],
            persons_n,
            foreign_nhw=None if other_n is None else maps_nphw[other_n, places_n],
            steps=steps,
            orders=orders,
        )
    return found


def _another(persons_n: np.ndarray) -> np.ndarray | None:
    """For each pair another one, the nearest before it (in a circle) of another person; None for one pair."""
    count = len(persons_n)
    if count < 2:
        return None
    before_nn = (np.arange(count)[:, None] - np.arange(1, count)) % count
    differs_nn = np.asarray(persons_n)[before_nn] != np.asarray(persons_n)[:, None]
    return before_nn[np.arange(count), differs_nn.argmax(1)]  # where none differs: the one before


def part_similarity(
    model: nn.Module, others_nd: Tensor, parts_n: Sequence[FeaturePart]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Cosine similarity of each pair's own part, as ``deletion_curves`` asks for it."""
    device = next(model.parameters()).device
    length = others_nd.shape[1]
    own_nd = torch.zeros(len(parts_n), length, dtype=torch.bool)
    for row_d, part in zip(own_nd, parts_n, strict=True):
        row_d[part.columns] = True
    own_nd, others_nd = own_nd.to(device), others_nd.to(device)

    @torch.inference_mode()
    def similarity(images_bchw: Tensor, which_b: Tensor) -> Tensor:
        with full_float32(device):
            features_bd = model.embed(normalise_images(images_bchw))
        return F.cosine_similarity(features_bd * own_nd[which_b], others_nd[which_b] * own_nd[which_b])

    return similarity


def deletion_sentence(name: str, found: Mapping[str, Deletion]) -> str:
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
    rows = []
    for stride, kinds in by_stride.items():
        gains = {kind: f"{one.gain} · {one.gain_over_foreign or '–'}" for kind, one in kinds.items()}
        rows.append({"network": name, "stride": stride, **gains})
    return rows


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
