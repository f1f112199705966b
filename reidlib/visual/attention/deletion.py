"""The deletion test: does blanking what an attention map calls important cost more than random blanking?

The patches of an image are blanked one after another, beginning with the highest attention, and the
similarity to the other image is measured after each step. The same is done in random orders of the same
patches. If a map is meaningful, its similarity falls sooner, and the area under its curve is smaller. All
curves have the same ends. A map that always points at the middle of the image beats random orders, too. Only
a comparison with another image's map of the same part, called the foreign map, shows that a map depends on
its image.

A blanked patch gets the mean colour of the image. This colour carries the least information about clothing
and keeps exposure and tint; black or grey would add an edge and look like clothing. Nevertheless, training
contains no such images.

Source: Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018
(the deletion metric, which they apply to the whole image and to a class's probability).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reidlib.analysis.statistics import Interval, paired
from reidlib.data.augmentation import normalise_images
from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart
from reidlib.ranking.distances import full_float32
from reidlib.visual.attention.maps import PartModel, indices_by_kind, pixel_rows
from reidlib.visual.attention.pairs import attention_in_batches

# Patches are squares of about an eighth of the image's width. They are finer than the maps, whose cells are
# centred on their first pixels and not between them.
PATCHES_ACROSS = 8
_BATCH_SIZE = 128  # blanked images that are embedded together


class Deletion(NamedTuple):
    """Similarities of N pairs of images while increasing shares of a part are blanked.

    Attributes:
        shares_s: Shares of the part's patches that are blanked, from 0 to 1, of shape (S,).
        attended_ns: Similarities if patches are blanked in the order of their attention, the highest first,
            of shape (N, S).
        random_ns: Mean similarities over random orders, of shape (N, S).
        persons_n: Identity of each pair's image, of shape (N,).
        foreign_ns: Similarities in the order of another pair's map, of shape (N, S); None without such a map.
    """

    shares_s: np.ndarray
    attended_ns: np.ndarray
    random_ns: np.ndarray
    persons_n: np.ndarray
    foreign_ns: np.ndarray | None = None

    @property
    def areas(self) -> tuple[float, float]:
        """The areas under the mean curves, attended and random; a curve that stays at 1 has the area 1."""
        return float(self._areas(self.attended_ns).mean()), float(self._areas(self.random_ns).mean())

    @property
    def gain(self) -> Interval:
        """Random area − attended area in hundredths of similarity; above 0, the map is meaningful."""
        return self._gain(self.random_ns)

    @property
    def gain_over_foreign(self) -> Interval | None:
        """Foreign area − attended area in hundredths of similarity; above 0, the map depends on the image."""
        return None if self.foreign_ns is None else self._gain(self.foreign_ns)

    def _gain(self, curves_ns: np.ndarray) -> Interval:
        # The 95 % interval is over pairs; all pairs of a person are drawn together.
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
    """Run the deletion test for any similarity.

    The test passes N · (2 + (steps − 1) · (1 + orders)) images through ``similarity``, and N · (steps − 1)
    more with foreign maps. It creates at most 128 of them at a time.

    Args:
        similarity: Function from blanked uint8 images of shape (B, 3, H, W) and the indices of their pairs of
            shape (B,) to similarities of shape (B,).
        images_nchw: uint8 images of N pairs, of shape (N, 3, H, W).
        maps_nhw: Attention maps of these images, of shape (N, H, W).
        rows_n: The first row and the row past the last of the area to blank, in pixels, for each pair.
        persons_n: Identities of the images, of shape (N,).
        foreign_nhw: For each pair the map of another image, of shape (N, H, W).
        steps: Number of steps; the blanked shares are 0, 1/steps, …, 1.
        orders: Number of random orders per pair.
        seed: Seed of the random orders.

    Returns:
        The similarities at every step.

    Raises:
        InputError: If shapes do not fit, or if ``steps`` or ``orders`` is less than 1.
    """
    if not 0 < len(images_nchw) == len(maps_nhw) == len(rows_n) == len(persons_n):
        rule = "every pair has an image, a map, rows and a person, and there is at least one pair"
        value = f"{len(images_nchw)}, {len(maps_nhw)}, {len(rows_n)} and {len(persons_n)}"
        raise InputError(rule, value, "pass one of each per pair")
    if maps_nhw.shape[1:] != images_nchw.shape[2:]:
        value = f"{maps_nhw.shape[1:]} for {tuple(images_nchw.shape[2:])}"
        raise InputError("a map has the size of its image", value, "resize the map")
    if steps < 1 or orders < 1:
        rule = "there are at least one step and one random order"
        raise InputError(rule, f"{steps} and {orders}", "use larger numbers")
    generator = np.random.default_rng(seed)
    shares_s = np.linspace(0, 1, steps + 1)
    foreign_maps = [None] * len(maps_nhw) if foreign_nhw is None else list(foreign_nhw)
    fill_nc11 = images_nchw.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    blanked = (
        (pair, mask_hw)
        for pair, maps in enumerate(zip(maps_nhw, foreign_maps, strict=True))
        for mask_hw in _masks(maps, rows_n[pair], shares_s, orders, generator)
    )
    values: list[np.ndarray] = []
    while batch := list(islice(blanked, _BATCH_SIZE)):
        pairs, masks = zip(*batch, strict=True)
        pairs_b = torch.tensor(pairs, device=images_nchw.device)
        blank_b1hw = torch.from_numpy(np.stack(masks))[:, None].to(images_nchw.device)
        images_bchw = torch.where(blank_b1hw, fill_nc11[pairs_b], images_nchw[pairs_b])
        values.append(similarity(images_bchw, pairs_b).cpu().double().numpy())
    # For each pair: the attended order with both ends, then the foreign and the random orders without ends.
    all_values = np.concatenate(values).reshape(len(images_nchw), -1)
    attended_ns = all_values[:, : steps + 1]
    inner_nos = all_values[:, steps + 1 :].reshape(len(images_nchw), -1, steps - 1)  # o: orders

    def with_ends(inner_ns: np.ndarray) -> np.ndarray:
        return np.concatenate([attended_ns[:, :1], inner_ns, attended_ns[:, -1:]], axis=1)

    random_ns = with_ends(inner_nos[:, -orders:].mean(1))
    foreign_ns = None if foreign_nhw is None else with_ends(inner_nos[:, 0])
    return Deletion(shares_s, attended_ns, random_ns, np.asarray(persons_n), foreign_ns)


def _masks(
    maps: tuple[np.ndarray, np.ndarray | None],
    rows: tuple[int, int],
    shares_s: np.ndarray,
    orders: int,
    generator: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yield the blanked pixels of an image, bool (H, W): by its own map, a foreign map and random orders."""
    own_hw, foreign_hw = maps
    patches_hw = _patches(own_hw.shape, rows)
    patches = patches_hw[slice(*rows)].ravel()
    sizes = np.bincount(patches)
    count = len(sizes)
    # Ties, such as values clipped at zero, are in random order, too: no patch is preferred for its position.
    tie_order = generator.permutation(count)
    rankings = [
        np.lexsort((tie_order, -np.bincount(patches, map_hw[slice(*rows)].ravel()) / sizes))
        for map_hw in (own_hw, foreign_hw)
        if map_hw is not None
    ]
    rankings += [generator.permutation(count) for _ in range(orders)]
    for number, order in enumerate(rankings):
        rank = np.empty(count + 1, np.int64)
        rank[order], rank[count] = np.arange(count), count  # the last entry: pixels outside the rows
        # Both ends are the same for all orders, so only the first order has them.
        for share in shares_s[1:-1] if number else shares_s:
            yield rank[patches_hw] < round(share * count)


def _patches(shape: tuple[int, ...], rows: tuple[int, int]) -> np.ndarray:
    """Return the patch number of every pixel (H, W); outside the rows it is the number past the last."""
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
    model: PartModel,
    images_nchw: Tensor,
    others_nd: Tensor,
    persons_n: np.ndarray,
    *,
    steps: int = 6,
    orders: int = 3,
    stride: int | None = None,
) -> Mapping[str, Deletion]:
    """Run the deletion test of a network's attention maps for each kind of its parts.

    Each pair tests one part of every kind, taking turns from top to bottom, so that the cost does not depend
    on the number of parts. The foreign map belongs to another pair, of another person if possible.

    Args:
        model: A JLML or Pyramid network.
        images_nchw: uint8 images of N pairs, of shape (N, 3, H, W), on the model's device.
        others_nd: Matching feature to compare each image with, of shape (N, D).
        persons_n: Identities of the images, of shape (N,).
        steps: Number of steps, as in ``deletion_curves``.
        orders: Number of random orders per pair.
        stride: Stride of the maps in pixels, as in ``maps.part_attention``.

    Returns:
        Kind of parts ("global", "level 2") to its similarities. A single pair has no foreign map.

    Raises:
        InputError: As ``deletion_curves`` and ``maps.part_attention``.
    """
    height = images_nchw.shape[2]
    parts = model.feature_parts(height)
    maps_nphw = attention_in_batches(model, images_nchw, others_nd, stride=stride)
    foreign_n = _foreign_pairs(persons_n)
    deletions = {}
    for kind, indices in indices_by_kind(parts).items():
        part_n = [indices[pair % len(indices)] for pair in range(len(images_nchw))]
        deletions[kind] = deletion_curves(
            part_similarity(model, others_nd, [parts[index] for index in part_n]),
            images_nchw,
            maps_nphw[np.arange(len(part_n)), part_n],
            [pixel_rows(parts[index], height) for index in part_n],
            persons_n,
            foreign_nhw=None if foreign_n is None else maps_nphw[foreign_n, part_n],
            steps=steps,
            orders=orders,
        )
    return deletions


def _foreign_pairs(persons_n: np.ndarray) -> np.ndarray | None:
    """Return for each pair the nearest pair before it, cyclically, of another person; None for one pair."""
    count = len(persons_n)
    if count < 2:
        return None
    before_nn = (np.arange(count)[:, None] - np.arange(1, count)) % count
    differs_nn = np.asarray(persons_n)[before_nn] != np.asarray(persons_n)[:, None]
    return before_nn[np.arange(count), differs_nn.argmax(1)]  # if all are of one person: the pair before


def part_similarity(
    model: PartModel, others_nd: Tensor, parts_n: Sequence[FeaturePart]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Create the similarity function that ``deletion_curves`` needs: the cosine similarity of a pair's part.

    Args:
        model: A JLML or Pyramid network.
        others_nd: Matching feature to compare each pair's image with, of shape (N, D).
        parts_n: The part of each pair.

    Returns:
        Function from uint8 images of shape (B, 3, H, W) and indices of pairs of shape (B,) to cosine
        similarities of shape (B,).
    """
    device = next(model.parameters()).device
    length = others_nd.shape[1]
    columns_nd = torch.zeros(len(parts_n), length, dtype=torch.bool)
    for columns_d, part in zip(columns_nd, parts_n, strict=True):
        columns_d[part.columns] = True
    columns_nd, others_nd = columns_nd.to(device), others_nd.to(device)

    @torch.inference_mode()
    def similarity(images_bchw: Tensor, pairs_b: Tensor) -> Tensor:
        with full_float32(device):
            features_bd = model.embed(normalise_images(images_bchw))
        columns_bd = columns_nd[pairs_b]
        return F.cosine_similarity(features_bd * columns_bd, others_nd[pairs_b] * columns_bd)

    return similarity


def deletion_sentence(name: str, deletions: Mapping[str, Deletion]) -> str:
    """Say for which kinds of parts a network's maps beat random orders and other queries' maps.

    Args:
        name: Name of the network.
        deletions: The result of ``deletion_by_kind``.

    Returns:
        A sentence in Markdown.
    """
    gains_by_reference = {"random orders": {kind: deletion.gain for kind, deletion in deletions.items()}}
    foreign = {kind: deletion.gain_over_foreign for kind, deletion in deletions.items()}
    if foreign := {kind: gain for kind, gain in foreign.items() if gain is not None}:
        gains_by_reference["another query's map"] = foreign
    clauses = [] if foreign else ["a single pair has no other query's map to compare with"]
    for reference, gains in gains_by_reference.items():
        better = [kind for kind, gain in gains.items() if gain.low > 0]
        unclear = [f"{kind} ({gain})" for kind, gain in gains.items() if kind not in better]
        if not unclear:
            clauses.append(f"the maps beat {reference} for every kind of parts ({', '.join(better)})")
        else:
            scope = f"for {', '.join(better)}" if better else "for no kind of parts"
            clauses.append(f"the maps beat {reference} {scope}, **not clearly for {', '.join(unclear)}**")
    return f"{name}: {'; '.join(clauses)}."


def count_better_than_random(deletions: Mapping[str, Deletion]) -> str:
    """Count the kinds of parts whose maps clearly beat random orders.

    Args:
        deletions: The result of ``deletion_by_kind``.

    Returns:
        Text such as "5 of 6". A kind counts if its whole interval is above 0.
    """
    return f"{sum(deletion.gain.low > 0 for deletion in deletions.values())} of {len(deletions)}"


def score_rows(name: str, deletions: Mapping[str, Deletion]) -> list[dict]:
    """Tabulate the areas under the curves of a network's kinds of parts.

    Args:
        name: Name of the network.
        deletions: The result of ``deletion_by_kind``.

    Returns:
        Column to text, for each kind of parts; differences are in hundredths of similarity.
    """
    return [
        {
            "network": name,
            "parts": kind,
            "area, attended": f"{deletion.areas[0]:.3f}",
            "area, random": f"{deletion.areas[1]:.3f}",
            "random − attended, × 100 [95 %]": str(deletion.gain),
            "better than random": "yes" if deletion.gain.low > 0 else "not clearly",
            "another query's − attended, × 100 [95 %]": str(deletion.gain_over_foreign or "–"),
        }
        for kind, deletion in deletions.items()
    ]


def stride_rows(name: str, by_stride: Mapping[int, Mapping[str, Deletion]]) -> list[dict]:
    """Tabulate the gains over random orders and over foreign maps, for maps of several strides.

    Args:
        name: Name of the network.
        by_stride: Stride in pixels to the result of ``deletion_by_kind``.

    Returns:
        Column to value, for each kind of parts and stride; gains are in hundredths of similarity.
    """
    return [
        {
            "network": name,
            "parts": kind,
            "stride": stride,
            "against random": str(deletions[kind].gain),
            "against another query's map": str(deletions[kind].gain_over_foreign or "–"),
        }
        for kind in next(iter(by_stride.values()))
        for stride, deletions in by_stride.items()
    ]


def stride_sentence(name: str, by_stride: Mapping[int, Mapping[str, Deletion]]) -> str:
    """Say which stride's maps gain most over random orders and over foreign maps.

    Args:
        name: Name of the network.
        by_stride: Stride in pixels to the result of ``deletion_by_kind``.

    Returns:
        A sentence in Markdown. It also names strides whose gain over random orders is within the interval of
        the best stride.
    """
    clauses = []
    for kind in next(iter(by_stride.values())):
        gains = {stride: deletions[kind].gain for stride, deletions in by_stride.items()}
        best = max(gains, key=lambda stride: gains[stride].mean)
        close = [
            str(stride) for stride, gain in gains.items() if stride != best and gain.mean >= gains[best].low
        ]
        clause = f"{kind}: **{best}**" + (f" (not clearly better than {', '.join(close)})" if close else "")
        foreign = {stride: deletions[kind].gain_over_foreign for stride, deletions in by_stride.items()}
        means = {stride: gain.mean for stride, gain in foreign.items() if gain is not None}
        if len(means) == len(foreign):
            clause += f", over another query's map {max(means, key=lambda stride: means[stride])}"
        clauses.append(clause)
    return f"{name}, stride with the largest gain over random orders: {'; '.join(clauses)}."
