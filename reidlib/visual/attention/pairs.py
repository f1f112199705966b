"""Pairs of images for the analysis of similarity: queries of a run with their right and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from reidlib.analysis.statistics import format_difference
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.evaluate import load_ranked_lists
from reidlib.experiments.features import TrainedNetwork, embed
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Status
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.attention.maps import PartModel, attention_grids, indices_by_kind, part_attention

_BATCH_SIZE = 32  # images whose maps are computed together


def first_answers(lists: Mapping[str, np.ndarray], count: int) -> pd.DataFrame:
    """Find the first right and the first wrong answer on the ranked lists that are stored with a run.

    Args:
        lists: The lists, from ``experiments.evaluate.ranked_lists_of``.
        count: Largest number of queries; they are evenly spaced over the lists that have both answers.

    Returns:
        A table in the order of the lists, with the lowest average precision first. Column "query" has the
        index of the query. "match" and "other" have the gallery indices of the nearest image of the same
        person and of another person or distractor. "wrong_first" says whether the latter is nearer.

    Raises:
        InputError: If no stored list has both a right and a wrong answer.
    """
    statuses = lists["statuses"]
    right, wrong = statuses == Status.MATCH, (statuses == Status.OTHER) | (statuses == Status.DISTRACTOR)
    candidates = np.flatnonzero(right.any(1) & wrong.any(1))
    if not len(candidates):
        rule = "at least one stored ranked list has a right and a wrong answer"
        raise InputError(rule, "none", "use another run")
    first_right, first_wrong = right[candidates].argmax(1), wrong[candidates].argmax(1)
    gallery = lists["gallery_indices"]
    columns = {
        "query": lists["query_indices"][candidates],
        "match": gallery[candidates, first_right],
        "other": gallery[candidates, first_wrong],
        "wrong_first": first_wrong < first_right,
    }
    selection = np.unique(np.linspace(0, len(candidates) - 1, count).round().astype(np.int64))
    return pd.DataFrame(columns).iloc[selection]


def part_similarities(features_nd: Tensor, others_nd: Tensor, parts: Sequence[FeaturePart]) -> np.ndarray:
    """Compute the cosine similarity of every part for pairs of images.

    Args:
        features_nd: Matching features of the first images, of shape (N, D).
        others_nd: Matching features of the second images, of shape (N, D).
        parts: The P parts of the feature.

    Returns:
        Similarities of shape (N, P).
    """
    similarities = [
        F.cosine_similarity(features_nd[:, part.columns], others_nd[:, part.columns]) for part in parts
    ]
    return torch.stack(similarities, 1).cpu().numpy()


class AnswerPairs(NamedTuple):
    """A network, and N queries with the images to compare them with.

    The images have roles: "query", "match" and, for test images, "other" (see ``first_answers``).

    Attributes:
        model: The network.
        parts: The P parts of its matching feature.
        persons_n: Identities of the queries, of shape (N,).
        wrong_first: Whether the image "other" is nearer to the query than "match", bool of shape (N,).
        images: Role to uint8 images of shape (N, 3, H, W) on the model's device.
        features: Role to matching features of shape (N, D) on the CPU.
    """

    model: PartModel
    parts: tuple[FeaturePart, ...]
    persons_n: np.ndarray
    wrong_first: np.ndarray
    images: Mapping[str, Tensor]
    features: Mapping[str, Tensor]

    def maps(self, role: str, compared_with: str, *, at: int | None = None) -> np.ndarray:
        """Compute maps of what in the images of one role supports their similarity to those of another.

        Args:
            role: Role of the images that the maps belong to.
            compared_with: Role of the other images.
            at: Index of a single pair; by default all pairs.

        Returns:
            Maps of shape (N, P, H, W), or (1, P, H, W) for a single pair.
        """
        selection = slice(None) if at is None else slice(at, at + 1)
        images_nchw, others_nd = self.images[role][selection], self.features[compared_with][selection]
        return attention_in_batches(self.model, images_nchw, others_nd, signed=False)

    def similarities(self, role: str, compared_with: str) -> np.ndarray:
        """Return the cosine similarity of each part between the images of two roles, of shape (N, P)."""
        return part_similarities(self.features[role], self.features[compared_with], self.parts)

    def sums_of_shares(self, role: str, compared_with: str) -> np.ndarray:
        """Return the sum of all cells' signed shares of each part's similarity, of shape (N, P)."""
        # If all layers behind the map are linear, without biases and shifts, the sum is the similarity.
        images, others = self.images[role].split(_BATCH_SIZE), self.features[compared_with].split(_BATCH_SIZE)
        batches = [attention_grids(self.model, *batch) for batch in zip(images, others, strict=True)]
        return np.concatenate([np.stack([g.shares_bhw.sum((1, 2)) for g in grids], 1) for grids in batches])

    def cell_sizes(self) -> Mapping[str, int]:
        """Return the size of a map's cell in pixels, for each kind of parts."""
        grids = attention_grids(self.model, self.images["query"][:1], self.features["query"][:1])
        return {part.kind: grid.cell for part, grid in zip(self.parts, grids, strict=True)}

    def image_array(self, role: str) -> np.ndarray:
        """Return the images of a role as figures need them, of shape (N, H, W, 3)."""
        return self.images[role].permute(0, 2, 3, 1).cpu().numpy()


def answer_pairs(run: Run, benchmark: Benchmark, count: int, execution: Execution) -> AnswerPairs:
    """Select queries of a run with their first right and first wrong answer.

    A run stores the ranked lists of the queries with the lowest, median and highest average precision. The
    selection is evenly spaced over these lists.

    Args:
        run: A trained run with weights.
        benchmark: The benchmark that the run was scored on.
        count: Largest number of queries.
        execution: Device and settings of the computation.

    Returns:
        The pairs.

    Raises:
        InputError: If ``count`` is less than 1, no query has both answers, or the run has no weights.
    """
    _check(count)
    answers = first_answers(load_ranked_lists(run), count)
    splits = {"query": benchmark.query, "match": benchmark.gallery, "other": benchmark.gallery}
    images = {role: (split, answers[role].to_numpy()) for role, split in splits.items()}
    return _pairs(run, images, answers["wrong_first"].to_numpy(), execution)


def training_pairs(run: Run, benchmark: Benchmark, count: int, execution: Execution) -> AnswerPairs:
    """Select training images with an image of the same person from another camera.

    These pairs serve for decisions that must not depend on test images. The same arguments select the same
    pairs.

    Args:
        run: A trained run with weights.
        benchmark: The benchmark that the run was trained on.
        count: Largest number of persons; each contributes one pair.
        execution: Device and settings of the computation.

    Returns:
        The pairs, with the roles "query" and "match".

    Raises:
        InputError: If ``count`` is less than 1, no person is seen by two cameras, or the run has no weights.
    """
    _check(count)
    generator = np.random.default_rng(0)
    persons_n, cameras_n = benchmark.train.person_ids, benchmark.train.camera_ids
    pairs = []
    for person in generator.permutation(np.unique(persons_n)):
        first, *rest = generator.permutation(np.flatnonzero(persons_n == person))
        other_cameras = [index for index in rest if cameras_n[index] != cameras_n[first]]
        if other_cameras and len(pairs) < count:
            pairs.append((first, other_cameras[0]))
    if not pairs:
        rule = "at least one training person is seen by two cameras"
        raise InputError(rule, "none", "use another benchmark")
    queries, matches = np.array(pairs).T
    images = {"query": (benchmark.train, queries), "match": (benchmark.train, matches)}
    return _pairs(run, images, np.zeros(len(pairs), bool), execution)


def _check(count: int) -> None:
    if count < 1:
        raise InputError("there is at least one pair", f"pairs = {count}", "use 1 or more")


def _pairs(
    run: Run, selection: Mapping[str, tuple[Split, np.ndarray]], wrong_first: np.ndarray, execution: Execution
) -> AnswerPairs:
    network = TrainedNetwork(run, execution)
    model = cast(PartModel, network.model)
    images, features = {}, {}
    for role, (split, indices) in selection.items():
        store = ImageStore(network.images(split).array_nhwc[indices], execution.torch_device)
        images[role], features[role] = store.batch(range(len(store))), embed(model, store)
    split, indices = selection["query"]
    parts = model.feature_parts(network.input_size[0])
    return AnswerPairs(model, parts, split.person_ids[indices], wrong_first, images, features)


def attention_in_batches(
    model: PartModel,
    images_nchw: Tensor,
    others_nd: Tensor,
    *,
    signed: bool = True,
    stride: int | None = None,
) -> np.ndarray:
    """Compute ``maps.part_attention`` in batches of 32 images.

    Args:
        model: A JLML or Pyramid network.
        images_nchw: uint8 images of shape (N, 3, H, W).
        others_nd: Matching features of the images to compare with, of shape (N, D).
        signed: Whether contributions against the similarity stay negative, which the deletion test needs.
        stride: Stride of the feature map in pixels, as in ``maps.part_attention``.

    Returns:
        Raw maps, float32 of shape (N, P, H, W).
    """
    batches = zip(images_nchw.split(_BATCH_SIZE), others_nd.split(_BATCH_SIZE), strict=True)
    return np.concatenate([part_attention(model, *batch, signed=signed, stride=stride) for batch in batches])


def comparison_rows(
    name: str, pairs: AnswerPairs, right_nphw: np.ndarray, wrong_nphw: np.ndarray
) -> list[dict]:
    """Tabulate how queries compare with their right and with their wrong answers.

    Args:
        name: Name of the network.
        pairs: Its queries and their answers.
        right_nphw: Maps of the queries for their right answers, of shape (N, P, H, W).
        wrong_nphw: Maps of the queries for their wrong answers, of shape (N, P, H, W).

    Returns:
        Column to text, for each kind of parts: means over queries and parts. The overlap is the cosine
        between the two maps of a part. The sum of the shares is over all cells of the maps for the right
        answers, signed.
    """
    sums_np = pairs.sums_of_shares("query", "match")
    roles = {"right": "match", "wrong": "other"}
    similarity = {answer: pairs.similarities("query", role) for answer, role in roles.items()}
    both_np = (right_nphw * wrong_nphw).sum((2, 3))
    lengths_np = np.sqrt((right_nphw**2).sum((2, 3)) * (wrong_nphw**2).sum((2, 3)))
    overlap_np = both_np / np.maximum(lengths_np, 1e-12)
    rows = []
    for kind, indices in indices_by_kind(pairs.parts).items():
        means = {answer: float(values_np[:, indices].mean()) for answer, values_np in similarity.items()}
        cells = {f"similarity, {answer}": f"{mean:.3f}" for answer, mean in means.items()}
        row = {"network": name, "parts": kind, **cells}
        row["sum of the shares, right"] = f"{sums_np[:, indices].mean():.3f}".replace("-", "−")
        row["right − wrong, × 100"] = format_difference(100 * (means["right"] - means["wrong"]))
        rows.append({**row, "overlap of the two maps": f"{overlap_np[:, indices].mean():.2f}"})
    return rows


def attribution_sentence(name: str, pairs: AnswerPairs) -> str:
    """Say which percentage of the similarity to the right answers the shares add up to.

    Args:
        name: Name of the network.
        pairs: Its queries and their answers.

    Returns:
        A sentence with the median over queries and parts, for each kind of parts.
    """
    sums_np, similarities_np = pairs.sums_of_shares("query", "match"), pairs.similarities("query", "match")
    medians = []
    for kind, indices in indices_by_kind(pairs.parts).items():
        nonzero = similarities_np[:, indices] != 0  # the feature of a part may be zero
        ratios = sums_np[:, indices][nonzero] / similarities_np[:, indices][nonzero]
        median = f"{100 * np.median(ratios):.0f} %".replace("-", "−") if len(ratios) else "–"
        medians.append(f"{kind} {median}")
    return f"{name}, sum of the shares in per cent of the similarity, median: {', '.join(medians)}."


def preference_sentence(name: str, pairs: AnswerPairs, index: int) -> str:
    """Say which parts of a query find its wrong answer more similar than its right one.

    Args:
        name: Name of the network.
        pairs: Its queries and their answers.
        place: Index of the query in ``pairs``.

    Returns:
        A sentence in Markdown.
    """
    gaps_p = (pairs.similarities("query", "other") - pairs.similarities("query", "match"))[index]
    largest_gap_part, smallest_gap_part = (
        pairs.parts[index].name for index in (gaps_p.argmax(), gaps_p.argmin())
    )
    largest, smallest = (format_difference(100 * gap) for gap in (gaps_p.max(), gaps_p.min()))
    return (
        f"{name}: {(gaps_p > 0).sum()} of {len(gaps_p)} parts find the wrong answer more similar than "
        f"the right one. The difference is largest for **{largest_gap_part}** ({largest} hundredths of "
        f"similarity) and smallest for **{smallest_gap_part}** ({smallest})."
    )
