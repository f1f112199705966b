"""What a benchmark is: training, query and gallery images, how they are scored, and what tells them apart."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from reidlib.data.rules import queries_with_match, rule_violations
from reidlib.data.splits import Split, concatenated
from reidlib.errors import InputError, check_choice


@dataclass(frozen=True)
class Protocol:
    """How a test is scored where a paper does not compare every query with every gallery image.

    shots: "single" for a gallery with one image of each person, drawn at random; "multi" for one entry of
        each person on both sides, two persons' distance being the mean over the pairs of their images.
    draws: random galleries that single-shot scores are averaged over.
    across_cameras: compare a query with images of other cameras only, strangers included.
    query_cameras: whose images are the queries; None for all of the query split.

    Distractors (person 0) are all in every gallery. Raises ``InputError`` for contradictory values.
    """

    shots: Literal["single", "multi"]
    draws: int = 1
    across_cameras: bool = True
    query_cameras: tuple[int, ...] | None = None

    def __post_init__(self):
        check_choice("a protocol's shots are single or multi", self.shots, ("single", "multi"))
        if self.draws < 1 or (self.shots == "multi" and self.draws != 1):
            raise InputError(
                "single-shot scores are averaged over one draw or more; multi-shot draws nothing",
                f"shots={self.shots!r}, draws={self.draws}",
                "use draws=1" if self.shots == "multi" else "use 1 or more",
            )


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Training, query and gallery images of one trial of one benchmark.

    ``num_trials`` is how many random or official partitions the protocol has, ``trial`` which one this is.
    ``options``: the reader's keywords that change the splits and were not left at their defaults, as in
    ``{"boxes": "detected"}``.
    ``boxes``: for the multi-query protocol, images of the queries' persons in the queries' cameras, over
    which a query's feature is pooled; None where the benchmark has none. They may be images of query and
    gallery. ``distractors``: more gallery images of nobody (person 0), for scores of their own; None where
    they were not asked for. ``protocols``: by title, how the papers score this benchmark besides
    Market-1501's way. These three are no part of the fingerprint: they change no training and no
    single-query score.
    ``extracted``: where the image files were written by the reader, what tells the archive that it took
    them from; the fingerprint takes this for their sizes, which depend on the encoder, and their names
    without folders. ``parts``: what ``combine`` combined.

    The splits keep the rules of ``reidlib.data.rules``; ``InputError`` names the first that is broken.
    Queries without a match are counted (``num_queries_without_match``), not refused, unless none has one.
    """

    name: str
    root: Path
    train: Split
    query: Split
    gallery: Split
    num_trials: int = 1
    trial: int = 0
    boxes: Split | None = None
    distractors: Split | None = None
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    extracted: str = ""
    parts: tuple[Benchmark, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        check_trial(self.name, self.trial, self.num_trials)
        for violation in rule_violations(self.train, self.query, self.gallery, self.boxes):
            raise violation

    @property
    def specification(self) -> str:
        """Name, options and trial in one word, such as ``cuhk03,boxes=detected,trial=3``.

        ``reidlib.data.load_specified`` reads the same benchmark from it again.
        """
        if self.parts:
            return "+".join(part.specification for part in self.parts)
        changed = {**self.options, **({"trial": self.trial} if self.trial else {})}
        return ",".join((self.name, *(f"{key}={_written(value)}" for key, value in changed.items())))

    @cached_property
    def num_queries_without_match(self) -> int:
        """Queries whose person the gallery does not show from another camera."""
        return int(np.count_nonzero(~queries_with_match(self.query, self.gallery)))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this data from any other.

        A hash of names relative to the root, ids, cameras and file sizes (or ``extracted``) of the three
        splits, in their order: the same on every machine and wherever the folder lies.
        """
        if self.parts:
            together = "\n".join(part.fingerprint for part in self.parts)
            return hashlib.sha256(together.encode()).hexdigest()[:16]
        digest = hashlib.sha256()
        # The root of a list of own images is the list, and their paths start from its folder.
        prefix = str(self.root.parent if self.root.is_file() else self.root) + os.sep
        for title, split in (("train", self.train), ("query", self.query), ("gallery", self.gallery)):
            digest.update(f"{title} {len(split)}\n".encode())
            for path, person_id, camera_id in zip(
                split.paths, split.person_ids.tolist(), split.camera_ids.tolist(), strict=True
            ):
                text = str(path)
                # A path outside the root (a list of own images, an extraction) counts by its name alone.
                within = text.startswith(prefix) and not self.extracted
                name = text[len(prefix) :].replace(os.sep, "/") if within else path.name
                name = unicodedata.normalize("NFC", name)  # macOS writes accents in another form
                # os.stat takes half the time of Path.stat, and there are tens of thousands.
                size = self.extracted or os.stat(text).st_size  # noqa: PTH116
                digest.update(f"{name}|{person_id}|{camera_id}|{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def combine(benchmarks: Sequence[Benchmark]) -> Benchmark:
    """Several benchmarks as one, to train on all their training images; at least two.

    Persons and cameras of the second and later ones are renumbered behind those before, junk and distractors
    excepted. A person who is in two of them counts as two. Raises ``InputError`` for fewer than two.
    """
    if len(benchmarks) < 2:
        raise InputError("at least two benchmarks are joined", len(benchmarks), "name another one")
    names = ("train", "query", "gallery")
    splits: dict[str, list[Split]] = {name: [] for name in names}
    persons = cameras = 0
    for benchmark in benchmarks:
        own = [getattr(benchmark, name) for name in names]
        for name, split in zip(names, own, strict=True):
            known = split.person_ids > 0
            renumbered = np.where(known, split.person_ids + persons, split.person_ids)
            splits[name].append(Split(split.paths, renumbered, split.camera_ids + cameras))
        persons += max(int(split.person_ids.max()) for split in own)
        cameras += max(int(split.camera_ids.max()) for split in own) + 1
    return Benchmark(
        "+".join(benchmark.name for benchmark in benchmarks),
        benchmarks[0].root,
        *(concatenated(splits[name]) for name in names),
        parts=tuple(benchmarks),
    )


def _written(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_trial(name: str, trial: int, num_trials: int) -> None:
    """Raise ``InputError`` for a trial that a benchmark does not have."""
    if not 0 <= trial < num_trials:
        trials = "trial 0 only" if num_trials == 1 else f"trials 0 to {num_trials - 1}"
        raise InputError(f"{name} has {trials}", f"trial {trial}", "choose one of those")
