"""Pairs of images whose similarity is looked into: a trained run's queries with right and wrong answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.analysis.statistics import signed
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.evaluate import ranked_lists_of
from reidlib.experiments.features import TrainedNetwork, embed
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Status
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.attention.maps import attention_grids, part_attention, places_by_kind

_AT_ONCE = 32  # images whose maps are made together


def first_answers(lists: Mapping[str, np.ndarray], count: int) -> pd.DataFrame:
    """The first right and the first wrong answer of at most ``count`` kept lists, evenly from first to last.

    lists: ``evaluate.ranked_lists_of``. Columns: "query", its index; "match" and "other", the gallery's
    indices of the nearest image of the same person and of anybody else; "wrong_first", is the other nearer?
    Queries come in the lists' order, worst average precision first; those that lack either among the kept
    places are left out. A distractor is a wrong answer. Raises InputError where none has both.
    """
    statuses = lists["statuses"]
    right, wrong = statuses == Status.MATCH, (statuses == Status.OTHER) | (statuses == Status.DISTRACTOR)
    both = np.flatnonzero(right.any(1) & wrong.any(1))
    if not len(both):
        rule = "a query has a right and a wrong answer among its kept ones"
        raise InputError(rule, "none does", "use another run")
    first_right, first_wrong = right[both].argmax(1), wrong[both].argmax(1)
    gallery = lists["gallery_indices"]
    columns = {
        "query": lists["query_indices"][both],
        "match": gallery[both, first_right],
        "other": gallery[both, first_wrong],
        "wrong_first": first_wrong < first_right,
    }
    chosen = np.unique(np.linspace(0, len(both) - 1, count).round().astype(np.int64))
    return pd.DataFrame(columns).iloc[chosen]


def part_similarities(features_nd: Tensor, others_nd: Tensor, parts: Sequence[FeaturePart]) -> np.ndarray:
    """Cosine similarity of each pair's every part: ``(N, P)``."""
    columns = [part.columns for part in parts]
    found = [F.cosine_similarity(features_nd[:, one], others_nd[:, one]) for one in columns]
    return torch.stack(found, 1).cpu().numpy()


class AnswerPairs(NamedTuple):
    """A network, and L queries with the images that each is compared with, by role.

    Roles are "query", "match" and, for test images, "other" (see ``first_answers``).
    """

    model: nn.Module
    parts: tuple[FeaturePart, ...]
    persons_n: np.ndarray  # whom each query shows
    wrong_first: np.ndarray  # bool: is the other nearer than the match?
    images: Mapping[str, Tensor]  # uint8 (L, 3, H, W) on the model's device
    features: Mapping[str, Tensor]  # (L, D) on the CPU

    def maps(self, role: str, compared_with: str, *, at: int | None = None) -> np.ndarray:
        """What in the images of one role supports their similarity to those of another: ``(L, P, H, W)``.

        at: of one pair alone, ``(1, P, H, W)``.
        """
        chosen = slice(None) if at is None else slice(at, at + 1)
        images_nchw, others_nd = self.images[role][chosen], self.features[compared_with][chosen]
        return attention_in_batches(self.model, images_nchw, others_nd, signed=False)

    def similarities(self, role: str, compared_with: str) -> np.ndarray:
        """Of each part, ``(L, P)``."""
        return part_similarities(self.features[role], self.features[compared_with], self.parts)

    def sums_of_shares(self, role: str, compared_with: str) -> np.ndarray:
        """The sum of all cells' signed shares of each part's similarity, ``(L, P)``.

        Where all behind the map is linear, without biases or shifts, it is the similarity.
        """
        images, others = self.images[role].split(_AT_ONCE), self.features[compared_with].split(_AT_ONCE)
        found = [attention_grids(self.model, *batch) for batch in zip(images, others, strict=True)]
        return np.concatenate([np.stack([g.shares_bhw.sum((1, 2)) for g in grids], 1) for grids in found])

    def cells(self) -> Mapping[str, int]:
        """Of each kind of parts how many image rows a cell of its maps stands for."""
        grids = attention_grids(self.model, self.images["query"][:1], self.features["query"][:1])
        return {part.kind: grid.cell for part, grid in zip(self.parts, grids, strict=True)}

    def array(self, role: str) -> np.ndarray:
        """The images as figures want them, ``(L, H, W, 3)``."""
        return self.images[role].permute(0, 2, 3, 1).cpu().numpy()


def answer_pairs(run: Run, benchmark: Benchmark, count: int, execution: Execution) -> AnswerPairs:
    """At most ``count`` of a run's kept queries with their first right and their first wrong answer.

    Kept are the worst, the middle and the best queries by average precision; the choice is spread over them.
    Raises InputError like ``first_answers``, for less than one, and where the run's weights are not there.
    """
    _check(count)
    answers = first_answers(ranked_lists_of(run), count)
    splits = {"query": benchmark.query, "match": benchmark.gallery, "other": benchmark.gallery}
    images = {role: (split, answers[role].to_numpy()) for role, split in splits.items()}
    return _pairs(run, images, answers["wrong_first"].to_numpy(), execution)


def training_pairs(run: Run, benchmark: Benchmark, count: int, execution: Execution) -> AnswerPairs:
    """An image of each of at most ``count`` training persons, compared with another camera's of the person.

    For choices that must not be made on test images. The same arguments give the same pairs.
    Raises InputError for less than one, and where no person is seen by two cameras.
    """
    _check(count)
    generator = np.random.default_rng(0)
    persons_n, cameras_n = benchmark.train.person_ids, benchmark.train.camera_ids
    found = []
    for person in generator.permutation(np.unique(persons_n)):
        first, *rest = generator.permutation(np.flatnonzero(persons_n == person))
        elsewhere = [index for index in rest if cameras_n[index] != cameras_n[first]]
        if elsewhere and len(found) < count:
            found.append((first, elsewhere[0]))
    if not found:
        raise InputError("a person is seen by two cameras", "none in training", "use another benchmark")
    queries, matches = np.array(found).T
    images = {"query": (benchmark.train, queries), "match": (benchmark.train, matches)}
    return _pairs(run, images, np.zeros(len(found), bool), execution)


def _check(count: int) -> None:
    if count < 1:
        raise InputError("one pair or more is looked at", f"pairs = {count}", "ask for 1 at least")


def _pairs(
    run: Run, chosen: Mapping[str, tuple[Split, np.ndarray]], wrong_first: np.ndarray, execution: Execution
) -> AnswerPairs:
    network = TrainedNetwork(run, execution)
    model = network.model
    images, features = {}, {}
    for role, (split, indices) in chosen.items():
        store = ImageStore(network.images(split).array_nhwc[indices], execution.torch_device)
        images[role], features[role] = store.batch(range(len(store))), embed(model, store)
    split, indices = chosen["query"]
    parts = model.feature_parts(network.input_size[0])
    return AnswerPairs(model, parts, split.person_ids[indices], wrong_first, images, features)


def attention_in_batches(
    model: nn.Module,
    images_nchw: Tensor,
    others_nd: Tensor,
    *,
    signed: bool = True,
    stride: int | None = None,
) -> np.ndarray:
    """``part_attention`` of many images: ``(N, P, H, W)``; by default signed, as orders need it."""
    batches = zip(images_nchw.split(_AT_ONCE), others_nd.split(_AT_ONCE), strict=True)
    return np.concatenate([part_attention(model, *batch, signed=signed, stride=stride) for batch in batches])


def comparison_rows(
    name: str, found: AnswerPairs, right_nphw: np.ndarray, wrong_nphw: np.ndarray
) -> list[dict]:
    """For each kind of a network's parts, how queries compare with right and with wrong answers.

    right_nphw, wrong_nphw: the queries' maps. Overlap is the cosine between the two maps of a query's part.
    Sums of the shares are over all cells, signed, of the right answers' maps.
    """
    sums_np = found.sums_of_shares("query", "match")
    roles = {"right": "match", "wrong": "other"}
    similarity = {answer: found.similarities("query", role) for answer, role in roles.items()}
    both_np = (right_nphw * wrong_nphw).sum((2, 3))
    lengths_np = np.sqrt((right_nphw**2).sum((2, 3)) * (wrong_nphw**2).sum((2, 3)))
    overlap_np = both_np / np.maximum(lengths_np, 1e-12)
    rows = []
    for kind, own in places_by_kind(found.parts).items():
        means = {answer: float(values_np[:, own].mean()) for answer, values_np in similarity.items()}
        cells = {f"similarity, {answer}": f"{mean:.3f}" for answer, mean in means.items()}
        row = {"network": name, "parts": kind, **cells}
        row["sum of the shares, right"] = f"{sums_np[:, own].mean():.3f}".replace("-", "−")
        row["right − wrong, × 100"] = signed(100 * (means["right"] - means["wrong"]))
        rows.append({**row, "overlap of the two maps": f"{overlap_np[:, own].mean():.2f}"})
    return rows


def accounted(name: str, found: AnswerPairs) -> str:
    """For how much of the similarity to the right answers the shares account, in words: medians by kind."""
    sums_np, similarities_np = found.sums_of_shares("query", "match"), found.similarities("query", "match")
    said = []
    for kind, own in places_by_kind(found.parts).items():
        similar = similarities_np[:, own] != 0  # a part may find nothing at all
        shares = sums_np[:, own][similar] / similarities_np[:, own][similar]
        median = f"{100 * np.median(shares):.0f} %".replace("-", "−") if len(shares) else "–"
        said.append(f"{kind} {median}")
    return f"{name}, sum of the shares in per cent of the similarity, median: {', '.join(said)}."


def preference(name: str, found: AnswerPairs, place: int) -> str:
    """Which parts of the query at ``place`` find its wrong answer the more similar one, in words."""
    gaps_p = (found.similarities("query", "other") - found.similarities("query", "match"))[place]
    most, least = (found.parts[index].name for index in (gaps_p.argmax(), gaps_p.argmin()))
    ends = [signed(100 * gap) for gap in (gaps_p.max(), gaps_p.min())]
    return (
        f"{name}: {(gaps_p > 0).sum()} of {len(gaps_p)} parts find the wrong answer more similar than "
        f"the right one, **{most}** by most ({ends[0]} hundredths of similarity); **{least}** is at the "
        f"other end ({ends[1]})."
    )
