"""Metrics on hand-crafted descriptors, measured on photographs by the papers' protocols.

``published.csv`` has the papers' rows with their settings: a row's own, and others, each named by its
``choice``, to say what that choice gives. ``compared.csv`` has what no paper printed: other metrics on the
same descriptors. ``measured.csv`` has what was measured on photographs, for those who have none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.data import load
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.readers import parse
from reidlib.data.splits import Split, concatenate
from reidlib.descriptors import gog, lomo, normalise_gog
from reidlib.errors import InputError, check_choice
from reidlib.experiments.metric_study import fit
from reidlib.experiments.rows import L2
from reidlib.files import write_text
from reidlib.metric_learning import CRAFT, KISSME, XQDA, Metric, NullSpace
from reidlib.metric_learning.coordinates import Coordinates
from reidlib.progress import progress_bar
from reidlib.ranking.metrics import Embeddings, evaluate, evaluate_distances
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.device import Execution

logger = logging.getLogger("reidlib")

RANKS = (1, 5, 10, 20)
# Height and width in pixels of the sets' images.
SIZES = {"viper": (128, 48), "cuhk01": (160, 60), "market1501,validation=true": (128, 64)}
# LOMO's own sizes; other images are resized.
_LOMO_SIZES = {"cuhk01": (160, 60)}
DESCRIPTORS = ("lomo", "gog")
_COLUMNS = ("row", "choice", "settings", "partitions", *(f"R{rank}" for rank in RANKS), "date")
_AVERAGES = {
    "distance": "mean of image distances",
    "squared": "mean of squared image distances",
    "least": "least image distance",
}
_TRAININGS = {
    "first": "one training image of each person and camera",
    "means": "means of each person's images in a camera, in training and test",
    "halves exchanged": "halves exchanged",
}
_METRICS = {"XQDA": XQDA, "NFST": NullSpace, "KISSME": KISSME, "CRAFT": CRAFT}
# More images than this times the numbers of a feature are not brought into the space that they span.
_MOST_IMAGES = 0.2


@dataclass(frozen=True)
class Case:
    """A row, or the same with another choice; texts as in ``published.csv`` and ``compared.csv``.

    Attributes:
        row: The row: descriptor, metric and benchmark.
        choice: What differs from the row's own settings; empty for these.
        benchmark, protocol: The set with its options but ``partitions``, and one of its
            ``Benchmark.protocols``, or "single query" as on Market-1501.
        descriptor: "lomo" or "gog" (all four colour spaces).
        retinex: "yes" or "no"; empty for GOG.
        size: Height×width at which LOMO describes an image; empty: the set's own, or 128×48.
        metric, options: The metric, or "L2", and the keywords that it gets.
        gallery: The camera whose images are the gallery, "A" or "B"; empty if the set says which images are.
        average: How two persons' image distances are put together: the mean "distance", the mean of "squared"
            distances, the "least" distance; empty if single-shot.
        training: "all" images of the training persons; the "first" of each person and camera; "means": each
            person has in each camera the mean descriptor of its images, also in the test; or "halves
            exchanged": training persons are tested and test persons trained on.
        published, tolerance, source: R1 as published, how far from it is near enough, in points, and where it
            is from, with how sure that is; empty in ``compared.csv``.
        from_scores: What of the settings was chosen by scores on the test persons; empty: nothing.
    """

    row: str
    choice: str
    benchmark: str
    protocol: str
    descriptor: str
    retinex: str
    size: str
    metric: str
    options: str
    gallery: str
    average: str
    training: str
    published: str
    tolerance: str
    source: str
    from_scores: str

    @property
    def settings(self) -> str:
        """All settings in words."""
        size = self.size or "{}×{}".format(
            *((128, 48) if self.descriptor == "gog" else _LOMO_SIZES.get(self.benchmark, (128, 48)))
        )
        parts = [f"{self.descriptor.upper()} at {size}", self.metric]
        if self.retinex:
            parts[0] += ", our Retinex" if self.retinex == "yes" else ", no Retinex"
        parts[1] += f" ({self.options.replace(' ', ', ')})" if self.options else ""
        parts += [f"gallery camera {self.gallery}"] if self.gallery else []
        parts += [_AVERAGES[self.average]] if self.average else []
        parts += [_TRAININGS[self.training]] if self.training != "all" else []
        return "; ".join(parts)

    @property
    def described(self) -> tuple[str, str, str]:
        """What determines the descriptors: cases that agree in it share them."""
        return self.descriptor, self.retinex, self.size

    @property
    def learnt(self) -> tuple[str, str, str]:
        """What else determines the metric: cases that agree in it share the metric of a partition."""
        return self.metric, self.options, self.training

    def new_metric(self) -> Metric | None:
        """Return the metric, not fitted; None if nothing is learnt."""
        if self.metric == L2:
            return None
        options = dict(option.split("=") for option in self.options.split())
        return _METRICS[self.metric](**{n: int(v) if v.isdecimal() else v for n, v in options.items()})


class Measured(NamedTuple):
    """Scores of a case on partitions.

    Attributes:
        case: The case.
        partitions: Name of the file of partitions; empty: this suite's own.
        scores: Rank -> its score for each partition, in per cent.
        refused: Why there are no scores; otherwise empty.
        date: When it was measured.
    """

    case: Case
    partitions: str
    scores: Mapping[int, tuple[float, ...]]
    refused: str = ""
    date: str = ""


def _lines(name: str) -> list[dict[str, str]]:
    with (files(__name__.rpartition(".")[0]) / name).open(encoding="utf-8") as text:
        lines = pd.read_csv(text, dtype=str, keep_default_na=False)
    return lines.to_dict("records")  # pyright: ignore[reportReturnType]


CASES = tuple(Case(**line) for name in ("published.csv", "compared.csv") for line in _lines(name))


def kept() -> dict[Case, Measured]:
    """Return what was measured on photographs and is in this package."""
    cases, measured = {(case.row, case.choice): case for case in CASES}, {}
    for line in _lines("measured.csv"):
        # What was measured with other settings than the case has today is no longer of this case.
        case = cases.get((line["row"], line["choice"]))
        if case and case.settings == line["settings"]:
            scores = {rank: tuple(map(float, line[f"R{rank}"].split())) for rank in RANKS}
            measured[case] = Measured(case, line["partitions"], scores, date=line["date"])
    return measured


def write_measured(path: Path, fresh: Iterable[Measured]) -> None:
    """Write ``measured.csv`` anew: what this package keeps, or in its place what was measured now.

    Args:
        path: The file.
        fresh: What was measured now. Cases without scores, and those on fewer partitions than are kept, are
            left out.

    Raises:
        InputError: If the file cannot be written.
    """
    measured = kept()
    for each in fresh:
        known = measured.get(each.case)
        if not each.refused and (known is None or len(each.scores[1]) >= len(known.scores[1])):
            measured[each.case] = each
    lines = [
        {"row": case.row, "choice": case.choice, "settings": case.settings, "partitions": each.partitions}
        | {f"R{rank}": " ".join(f"{value:.2f}" for value in each.scores[rank]) for rank in RANKS}
        | {"date": each.date}
        for case in CASES
        if (each := measured.get(case))
    ]
    write_text(path, pd.DataFrame(lines, columns=_COLUMNS).to_csv(index=False, lineterminator="\n"))


def specifications_of(folders: Mapping[str, str | Path]) -> dict[str, str]:
    """Return which of the given folders are those of the rows.

    Args:
        folders: Name or specification of a benchmark -> folder. Other benchmarks, and other options, are for
            other notebooks.

    Returns:
        The rows' benchmark -> its specification; one with ``partitions`` comes first.
    """
    fitting = {}
    for text in sorted((text for text, folder in folders.items() if str(folder)), key=len):
        name, options = parse(text)
        options.pop("partitions", None)
        fitting |= {own: text for own in SIZES if parse(own) == (name, options)}
    return fitting


def measure(
    folders: Mapping[str, str | Path],
    descriptors: Sequence[str] = ("lomo",),
    *,
    choices: bool = False,
    trials: int = 0,
    execution: Execution,
) -> Iterator[Measured]:
    """Measure the rows on photographs, each descriptor once for all partitions and metrics.

    Memory: the descriptors of all images in float32, of CUHK01 0.55 GB and of Market-1501's training folder
    1.4 GB; of LOMO on CUHK01 the products of all pairs six times in float64, 0.7 GB; of GOG a partition's,
    normalised, 0.4 GB on CUHK01.

    Args:
        folders: "viper" or "cuhk01", with ``,partitions=FILE`` or without, or "market1501,validation=true" ->
            folder. Without partitions, this suite's own are used. Others are not read.
        descriptors: Of which rows: "lomo", "gog".
        choices: Whether other choices are measured, too.
        trials: Number of partitions, the first ones; 0 for all.
        execution: Device, and whether progress is shown.

    Yields:
        Each case, in the order of ``CASES`` within a set and its descriptors.

    Raises:
        InputError: If a descriptor has another name, or a folder cannot be read.
    """
    for name in descriptors:
        check_choice("published rows are of lomo and gog", name, DESCRIPTORS)
    cases = [case for case in CASES if case.descriptor in descriptors and (choices or not case.choice)]
    loaded = {}
    for benchmark, text in specifications_of(folders).items():
        (name, options), root = parse(text), Path(folders[text]).expanduser()
        first = load(name, root, **options)
        count = min(trials, first.num_trials) if trials else first.num_trials
        more = [load(name, root, trial=trial, **options) for trial in range(1, count)]
        loaded[benchmark] = [first, *more]
    for benchmark, data in loaded.items():
        own = sorted((case for case in cases if case.benchmark == benchmark), key=lambda case: case.described)
        for _, of_descriptor in groupby(own, key=lambda case: case.described):
            yield from _measure(list(of_descriptor), data, execution)


def _measure(cases: list[Case], data: list[Benchmark], execution: Execution) -> Iterator[Measured]:
    """Measure cases that share descriptors."""
    first, title = cases[0], f"{data[0].name}, {cases[0].descriptor}"
    images = concatenate([data[0].train, data[0].query, data[0].gallery])
    features_nd = _describe(first, images, execution)
    rows = {path: row for row, path in enumerate(images.paths)}
    shares: dict[Case, list[dict[int, float]]] = {case: [] for case in cases}
    refused: dict[Case, str] = {}
    work = [(benchmark, case) for benchmark in data for case in cases]
    with progress_bar(
        total=len(work), desc=title, unit="score", disable=not execution.progress, leave=False
    ) as bar:
        for benchmark in data:
            metrics: dict[tuple, tuple[Metric | None, Embeddings, Embeddings]] = {}
            for case in cases:
                try:
                    if case.learnt not in metrics:
                        metrics[case.learnt] = _learn(case, benchmark, features_nd, rows)
                    shares[case].append(_score(case, *metrics[case.learnt], benchmark))
                except InputError as error:
                    refused[case] = str(error)
                bar.update()
    partitions = Path(str(data[0].options.get("partitions", ""))).stem
    for case in cases:
        scores = {rank: tuple(100 * each[rank] for each in shares[case]) for rank in RANKS}
        date = datetime.now(UTC).date().isoformat()
        yield Measured(case, partitions, {} if case in refused else scores, refused.get(case, ""), date)


def _describe(case: Case, images: Split, execution: Execution) -> np.ndarray:
    """Return descriptors (N, D); LOMO's in the space that they span, which changes no difference of two."""
    device, progress = execution.torch_device, execution.progress
    store = ImageStore.open(images.paths, SIZES[case.benchmark], device="cpu", progress=progress)
    if case.descriptor == "gog":
        return gog(store.array_nhwc, device=device, progress=progress)
    height, _, width = case.size.partition("×")
    size = (int(height), int(width)) if case.size else _LOMO_SIZES.get(case.benchmark, (128, 48))
    features_nd = lomo(
        store.array_nhwc, retinex=case.retinex == "yes", size=size, device=device, progress=progress
    )
    if len(features_nd) > _MOST_IMAGES * features_nd.shape[1]:
        return features_nd
    return Coordinates.fit(features_nd, "measure the rows of one benchmark").values_nk


def _learn(
    case: Case, benchmark: Benchmark, features_nd: np.ndarray, rows: Mapping[Path, int]
) -> tuple[Metric | None, Embeddings, Embeddings]:
    """Learn a metric on a partition; return it with both sides' test images, queries or camera A first."""
    training, sides = benchmark.train, (benchmark.query, benchmark.gallery)
    if case.training == "halves exchanged":
        tested, training = training, concatenate(sides)
        sides = tuple(tested.select(tested.camera_ids == camera) for camera in (1, 2))
    elif case.training == "first":
        both = np.stack([training.person_ids, training.camera_ids], axis=1)
        training = training.select(np.unique(both, axis=0, return_index=True)[1])
    splits = (training, *sides)
    arrays = [features_nd[[rows[path] for path in split.paths]] for split in splits]
    if case.descriptor == "gog":
        mean_d = arrays[0].mean(0, dtype=np.float64)
        arrays = [normalise_gog(array, mean_d) for array in arrays]
    embedded = [
        Embeddings(array, split.person_ids, split.camera_ids)
        for array, split in zip(arrays, splits, strict=True)
    ]
    if case.training == "means":
        embedded = [_means(each) for each in embedded]
    learnt, first, second = embedded
    if metric := case.new_metric():
        for note in fit(metric, learnt).notes:
            logger.warning(f"{case.row}, {benchmark.specification}: {note}")
    return metric, first, second


def _means(images: Embeddings) -> Embeddings:
    """Return the mean feature of each person in each camera."""
    both = np.stack([images.person_ids, images.camera_ids], axis=1)
    ids, groups_n, sizes = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((len(ids), images.features.shape[1]))
    np.add.at(sums, groups_n.ravel(), np.asarray(images.features))
    return Embeddings(sums / sizes[:, None], ids[:, 0], ids[:, 1])


def _score(
    case: Case, metric: Metric | None, first: Embeddings, second: Embeddings, benchmark: Benchmark
) -> dict[int, float]:
    """Return the CMC of a case on a partition."""
    query, gallery = (second, first) if case.gallery == "A" else (first, second)
    if metric is None or case.average != "least":
        sides = (query, gallery) if metric is None else metric.embeddings(query, gallery)
        if case.protocol not in benchmark.protocols:
            return evaluate(*sides, ranks=RANKS).cmc
        protocol = benchmark.protocols[case.protocol]
        average = "distance" if case.average == "distance" else "squared"
        return evaluate_protocol(*sides, protocol, ranks=RANKS, average_of=average).cmc
    distances_qg = metric.distances(query.features, gallery.features)
    for axis, side in enumerate((query, gallery)):  # persons in place of images
        order = np.argsort(side.person_ids, kind="stable")
        begins = np.unique(side.person_ids[order], return_index=True)[1]
        distances_qg = np.minimum.reduceat(np.take(distances_qg, order, axis), begins, axis)
    query, gallery = (
        Split([Path()] * size, np.unique(side.person_ids), np.full(size, side.camera_ids[0]))
        for size, side in zip(distances_qg.shape, (query, gallery), strict=True)
    )
    return evaluate_distances(distances_qg, query, gallery, ranks=RANKS).cmc
