"""A run with its scores: found if it was trained before, else trained.

What is trained is a row of ``EXPERIMENTS`` in the size of a profile, which makes a ``RunConfiguration``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode_blocks
from reidlib.data.splits import training_labels
from reidlib.errors import InputError, shorten
from reidlib.experiments.evaluate import evaluate_run, scored
from reidlib.experiments.features import check_data_of
from reidlib.experiments.rows import Profile, experiment_named
from reidlib.training import distributed
from reidlib.training.config import MODELS, RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.loop import train
from reidlib.training.runs import Run, configuration_hash, failure_of, find, find_hash, find_or_train

logger = logging.getLogger("reidlib")

# What may go wrong with one training and leave the others as they are. Anything else is an error of the
# program and stops it.
FAILURES = (InputError, FloatingPointError, torch.OutOfMemoryError, OSError)


class Link(NamedTuple):
    """One training of a chain: the readable beginning of its run's folder, its configuration, its data."""

    name: str
    wanted: RunConfiguration
    benchmark: Benchmark

    def check_set(self) -> None:
        """Raise InputError where the training images fill no batch."""
        self.wanted.recipe.check_set(self.benchmark.train.person_ids, self.benchmark.specification)


def link(experiment: str, profile: Profile, benchmark: Benchmark, *, seed: int = 0, start: str = "") -> Link:
    """A row of ``EXPERIMENTS`` in the size of a profile; ``start`` as in ``RunConfiguration``."""
    row = experiment_named(experiment)
    size = profile.sizes[row.model]
    model = MODELS[row.model](**{**row.changed, **size.scaled})
    factor = row.trunk_rate if model.weights is None else 1
    wanted = RunConfiguration(
        model=model,
        recipe=replace(size.recipe, trunk_rate=factor * size.recipe.trunk_rate),
        input_size=size.input_size,
        benchmark=benchmark.specification,
        data=benchmark.fingerprint,
        seed=seed,
        start=start,
    )
    data = files.safe_name(benchmark.specification)
    name = f"{experiment}-{profile.name}-{data}-seed{seed}" + ("-pretrained" if start else "")
    return Link(name, wanted, benchmark)


def chain(
    experiment: str,
    profile: Profile,
    benchmark: Benchmark,
    *,
    before: Sequence[Benchmark] = (),
    seed: int = 0,
) -> tuple[Link, ...]:
    """A training on ``benchmark`` that starts from one on each of ``before``, the first of them first.

    This is how JLML was trained for small sets: on CUHK03 and Market-1501 together (``combine``), then on the
    target, with new classifiers. Raises InputError where a test image would be trained on.
    """
    tested = {*benchmark.query.paths, *benchmark.gallery.paths}
    if leaked := sorted(path.name for data in before for path in tested.intersection(data.train.paths)):
        raise InputError(
            "no test image is trained on before",
            f"{len(leaked)} of {benchmark.specification}: {shorten(leaked)}",
            "pre-train on another benchmark",
        )
    links: list[Link] = []
    for data in (*before, benchmark):
        start = configuration_hash(links[-1].wanted.to_json()) if links else ""
        links.append(link(experiment, profile, data, seed=seed, start=start))
    return tuple(links)


def obtain(
    links: Sequence[Link],
    *,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    report: Callable[[str], None] = logger.warning,
    may_train: bool = True,
    since: float | None = None,
) -> Run:
    """The run of a chain's last link with its scores: whatever is missing is trained and evaluated.

    The links before it are wanted only where it is not there yet. runs: where runs are kept
    (``files.runs()``). may_train: False refuses (InputError) where a run is not there yet. since: as in
    ``find_or_train``. A run that was carried here without its weights is used with the scores that it has.

    Where ``torchrun`` started several processes, all of them call this: the first one looks for the runs and
    evaluates them, and if one is missing all of them train it together.
    """
    execution = execution or Execution()
    folder = Path(runs) if runs else files.runs()
    needed = 0
    if len(links) > 1:  # one look for all processes: another command may be training, too
        if distributed.world().rank == 0:
            with distributed.refusing_together():
                there = [find(link.wanted.to_json(), folder) is not None for link in links]
                needed = max((place for place, found in enumerate(there) if found), default=0)
        needed = distributed.from_first(needed)
    for link in links[needed:]:  # all of them before the first is trained
        check_data_of(link.wanted, link.benchmark)
        if may_train:
            link.check_set()
        distributed.check_share(link.wanted.recipe.batch_size)
    for link in links[needed:]:
        content = link.wanted.to_json()
        if not may_train and find(content, folder) is None:
            failure = failure_of(content, folder)
            raise InputError(
                "this run is to be there already",
                f"no {link.name} in {folder}" + (f"; its training failed: {failure}" if failure else ""),
                "train it, or copy it there; the report's folder tasks says why a training failed",
            )
        run = _obtain(link, folder, execution, report, since)
    return run


def _obtain(
    link: Link, folder: Path, execution: Execution, report: Callable[[str], None], since: float | None
) -> Run:
    name, wanted, benchmark = link

    def train_it(run_folder: Path) -> dict:
        labels_n, identities_k = training_labels(benchmark.train.person_ids)
        information = train(
            _initial_model(wanted, len(identities_k), folder),
            wanted.model.objective,
            _all_images(benchmark, wanted.input_size, execution),
            torch.from_numpy(labels_n),
            wanted.recipe,
            folder=run_folder,
            seed=wanted.seed,
            execution=execution,
            title=name,
            balance=wanted.model.balance,
        )
        # Where `reidlib evaluate` looks first; the fingerprint decides whether the data are the same.
        return {**information, "data_root": str(benchmark.root.absolute())}

    if distributed.world().rank > 0:
        # What the first process says: a folder to train in, if the run is missing; at the end the run's.
        task, told = distributed.from_first()
        if task == "train":
            train_it(Path(told))
            _, told = distributed.from_first()
        return Run(Path(told))

    def train_together(run_folder: Path) -> dict:
        distributed.from_first(("train", str(run_folder)))
        return train_it(run_folder)

    content = wanted.to_json()
    with distributed.refusing_together():
        run = find_or_train(content, train_together, name=name, folder=folder, report=report, since=since)
        if not scored(run, benchmark):
            evaluate_run(run, benchmark, execution=execution)
    distributed.from_first(("found", str(run.folder)))
    return run


def _all_images(benchmark: Benchmark, size: tuple[int, int], execution: Execution) -> ImageStore:
    """The training images, after every other image was decoded too, the unreadable ones of all named at once.

    A broken query image must not be found after hours of training.
    """
    unreadable: list[Unreadable] = []
    images = None
    for split in (benchmark.query, benchmark.gallery, benchmark.train):
        device = execution.torch_device if split is benchmark.train else "cpu"
        try:
            images = ImageStore.open(split.paths, size, device=device, progress=execution.progress)
        except UnreadableError as error:
            unreadable += error.images
    if benchmark.boxes is not None:  # which are not kept decoded
        known = {*benchmark.query.paths, *benchmark.gallery.paths}
        paths = [path for path in benchmark.boxes.paths if path not in known]
        blocks = decode_blocks(paths, None, title="reading boxes", progress=execution.progress)
        unreadable += [image for block in blocks for image in block if isinstance(image, Unreadable)]
    if unreadable:
        raise UnreadableError(unreadable)
    return images


def _initial_model(wanted: RunConfiguration, num_classes: int, runs: Path) -> torch.nn.Module:
    """The network before its first step: new, or with another run's weights and new classifiers."""
    if not wanted.start:
        return wanted.model.build(num_classes, wanted.seed)
    before = find_hash(wanted.start, runs)
    if before is None:
        raise InputError(
            "a training that starts from another run needs that run",
            f"no finished run …-{wanted.start} in {runs}",
            "train that one first (a chain does), or copy it there",
        )
    # What would be downloaded from elsewhere is replaced at once.
    model = replace(wanted.model, weights=None).build(num_classes, wanted.seed)
    carried = {name: one for name, one in before.weights().items() if not name.startswith("classifiers.")}
    try:
        left = model.load_state_dict(carried, strict=False)
        lacking = [name for name in left.missing_keys if not name.startswith("classifiers.")]
        reason = "other layers" if left.unexpected_keys or lacking else ""
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
    if reason:
        raise InputError(
            "a training starts from a run of the same network",
            f"{before.folder.name}: {reason}",
            "start from a run of the same row and profile",
        )
    return model
