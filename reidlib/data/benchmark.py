"""A benchmark: its training, query and gallery images, its protocols and its fingerprint."""

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

from reidlib.data.decoding import pixel_treatments, treatments
from reidlib.data.rules import queries_with_match, rule_violations
from reidlib.data.splits import Split, concatenate
from reidlib.errors import InputError, check_choice


@dataclass(frozen=True)
class Protocol:
    """A test protocol that does not compare every query with every gallery image.

    All distractors (person 0) are in every gallery.

    Attributes:
        shots: "single" for a gallery with one random image of each person; "multi" for one entry for each
            person in query and gallery, where two persons' distance is the mean over pairs of their images.
        draws: Number of random galleries over which single-shot scores are averaged.
        across_cameras: Whether a query is compared only with images from other cameras, including images of
            other persons.
        query_cameras: Camera ids of the images that are queries; None for the whole query split.

    Raises:
        InputError: If ``shots`` is unknown, or ``draws`` contradicts it.
    """

    shots: Literal["single", "multi"]
    draws: int = 1
    across_cameras: bool = True
    query_cameras: tuple[int, ...] | None = None

    def __post_init__(self):
        check_choice("a protocol's shots are single or multi", self.shots, ("single", "multi"))
        if self.draws < 1 or (self.shots == "multi" and self.draws != 1):
            raise InputError(
                "single-shot scores are averaged over at least one draw; multi-shot scores have exactly one",
                f"shots={self.shots!r}, draws={self.draws}",
                "use draws=1" if self.shots == "multi" else "use at least 1",
            )


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Training, query and gallery images of one partition of a benchmark.

    The splits satisfy the rules of ``reidlib.data.rules``; if it is ``training_only``, query and gallery are
    empty. Queries without a match are counted (``num_queries_without_match``); they are an error only if no
    query has a match. The fingerprint does not cover ``boxes``, ``distractors`` and ``protocols``, because
    they change no training and no single-query score.

    Attributes:
        name: The benchmark's name, such as "market1501".
        root: Its folder, or the list of the user's own images.
        train: Training images.
        query: Query images.
        gallery: Gallery images, including junk (person -1) and distractors (person 0).
        num_trials: Number of partitions, random or official, that the protocol has.
        trial: The number, from 0, that selects one of them. A "trial" is always this number.
        boxes: Images of the queries' persons in the queries' cameras, over which multi-query features are
            pooled; None if the benchmark has none. They may be images of query and gallery.
        distractors: Further gallery images of unknown persons (person 0), which are scored separately; None
            if they were not requested.
        options: The reader's keywords that change the splits and differ from their defaults, such as
            ``{"boxes": "detected"}``.
        protocols: The papers' protocols for this benchmark besides Market-1501's, by title.
        extracted: Identity of the archive from which the reader wrote the image files; empty otherwise. The
            fingerprint uses it instead of the file sizes, which depend on the encoder, and omits folders.
        members: The benchmarks that ``combine`` combined.

    Raises:
        InputError: If the splits violate a rule, or the trial does not exist.
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
    members: tuple[Benchmark, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        check_trial(self.name, self.trial, self.num_trials)
        splits = (self.train, self.query, self.gallery, self.boxes)
        for violation in rule_violations(*splits, training_only=self.training_only):
            raise violation

    @property
    def specification(self) -> str:
        """Name, options and trial for ``load_specified``, such as ``cuhk03,boxes=detected,trial=3``."""
        if self.members:
            return "+".join(member.specification for member in self.members)
        changed = {**self.options, **({"trial": self.trial} if self.trial else {})}
        return ",".join((self.name, *(f"{key}={option_text(value)}" for key, value in changed.items())))

    @property
    def training_only(self) -> bool:
        """Whether there is no query and no gallery: the training images serve for pre-training."""
        if self.members:
            return all(member.training_only for member in self.members)
        return bool(self.options.get("training_only"))

    def check_scorable(self) -> None:
        """Raise InputError if there are no test images, on which a run could be evaluated."""
        if self.training_only:
            rule = "a run is evaluated on query and gallery"
            mend = "use it with --pretrain, or score training persons held out by validation=true"
            raise InputError(rule, f"{self.specification}, without either", mend)

    @cached_property
    def num_queries_without_match(self) -> int:
        """Number of queries whose person the gallery does not show from another camera."""
        return int(np.count_nonzero(~queries_with_match(self.query, self.gallery)))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of this data, 16 hexadecimal digits, equal on every machine and in every folder."""
        # It covers names relative to the root, ids, cameras, file sizes (or ``extracted``) and the treatments
        # that change pixels of the three splits, in their order.
        if self.members:
            fingerprints = "\n".join(member.fingerprint for member in self.members)
            return hashlib.sha256(fingerprints.encode()).hexdigest()[:16]
        digest = hashlib.sha256()
        # The root of a list of own images is the list, and their paths start from its folder.
        prefix = str(self.root.parent if self.root.is_file() else self.root) + os.sep
        for title, split in (("train", self.train), ("query", self.query), ("gallery", self.gallery)):
            digest.update(f"{title} {len(split)}\n".encode())
            needs = {} if self.extracted else treatments(split.paths)
            for index, (path, person_id, camera_id) in enumerate(
                zip(split.paths, split.person_ids.tolist(), split.camera_ids.tolist(), strict=True)
            ):
                text = str(path)
                # Of a path outside the root (a list of own images, an extraction), only the file name counts.
                within = text.startswith(prefix) and not self.extracted
                name = text[len(prefix) :].replace(os.sep, "/") if within else path.name
                name = unicodedata.normalize("NFC", name)  # macOS encodes accents in another form
                # os.stat takes half the time of Path.stat, and there are tens of thousands of files.
                size = self.extracted or os.stat(text).st_size  # noqa: PTH116
                line = f"{name}|{person_id}|{camera_id}|{size}{pixel_treatments(needs.get(index, ()))}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def combine(benchmarks: Sequence[Benchmark]) -> Benchmark:
    """Combine several benchmarks into one, to train on all their training images.

    Person and camera ids of each further benchmark are renumbered, so that they follow the ids before; junk
    and distractors keep theirs. A person in two benchmarks counts as two persons.

    Args:
        benchmarks: At least two benchmarks, in the order of the renumbering.

    Returns:
        One benchmark whose train, query and gallery are the concatenated splits; its root is the first one's.

    Raises:
        InputError: If there are fewer than two benchmarks.
    """
    if len(benchmarks) < 2:
        raise InputError("at least two benchmarks are combined", len(benchmarks), "name another one")
    names = ("train", "query", "gallery")
    splits: dict[str, list[Split]] = {name: [] for name in names}
    persons = cameras = 0
    for benchmark in benchmarks:
        own_splits = [getattr(benchmark, name) for name in names]
        for name, split in zip(names, own_splits, strict=True):
            renumbered = np.where(split.person_ids > 0, split.person_ids + persons, split.person_ids)
            splits[name].append(Split(split.paths, renumbered, split.camera_ids + cameras))
        persons += max(int(split.person_ids.max()) for split in own_splits if len(split))
        cameras += max(int(split.camera_ids.max()) for split in own_splits if len(split)) + 1
    train, query, gallery = (concatenate(splits[name]) for name in names)
    name = "+".join(benchmark.name for benchmark in benchmarks)
    return Benchmark(name, benchmarks[0].root, train, query, gallery, members=tuple(benchmarks))


def option_text(value: str | int | bool) -> str:
    """Return an option's value as a specification has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_trial(name: str, trial: int, num_trials: int) -> None:
    """Raise InputError if a benchmark does not have this trial."""
    if not num_trials:
        raise InputError(f"{name} has partitions", "none in its files", "download or copy them again")
    if not 0 <= trial < num_trials:
        trials = "trial 0 only" if num_trials == 1 else f"trials 0 to {num_trials - 1}"
        raise InputError(f"{name} has {trials}", f"trial {trial}", "choose one of these")
