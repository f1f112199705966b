"""A run with its scores: loaded if it was trained before, otherwise trained and evaluated.

A row of ``EXPERIMENTS`` and a profile make the ``RunConfiguration``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.decoding import UnreadableImage, UnreadableImagesError
from reidlib.data.images import ImageStore, decode_blocks
from reidlib.data.splits import Split, training_labels
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_run, is_scored
from reidlib.experiments.features import check_run_data
from reidlib.experiments.overlap import NUMBERS_MEND, describe_overlap
from reidlib.experiments.rows import Profile, configure
from reidlib.experiments.validation import Validation, hold_out
from reidlib.training import distributed
from reidlib.training.config import Recipe, RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.loop import Objective, train
from reidlib.training.runs import Run, configuration_hash, find, find_by_hash, find_failure, find_or_train

# Errors of one training that do not affect other trainings. Any other error is a fault of the program.
FAILURES = (InputError, FloatingPointError, torch.OutOfMemoryError, OSError)


class TrainingPlan(NamedTuple):
    """One training of a chain: beginning of its run's folder name, configuration and benchmark."""

    name: str
    configuration: RunConfiguration
    benchmark: Benchmark

    def check_set(self) -> None:
        """Raise InputError if the training images fill no batch."""
        train, _ = self.divide()
        persons = self.configuration.validation_persons
        rest = f" without {persons} validation persons" if persons else ""
        try:
            self.recipe.check_training_set(train.person_ids, f"{self.benchmark.specification}{rest}")
        except InputError as error:
            mend = f"use fewer validation persons, or {error.mend}" if persons else error.mend
            raise InputError(error.rule, error.value, mend) from error

    def divide(self) -> tuple[Split, Split | None]:
        """Return the images to train on and those of validation persons, if there are any."""
        return hold_out(self.benchmark, self.configuration.validation_persons, self.configuration.seed)

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole training."""
        train, _ = self.divide()
        per_epoch = self.recipe.steps_per_epoch(len(train), len(set(train.person_ids.tolist())))
        return self.recipe.num_steps(per_epoch)

    @property
    def recipe(self) -> Recipe:
        """The recipe, which every training has."""
        assert self.configuration.recipe is not None
        return self.configuration.recipe


def plan_training(
    experiment: str,
    profile: Profile,
    benchmark: Benchmark,
    *,
    seed: int = 0,
    start: str = "",
    settings: Mapping[str, str] | None = None,
    validation_persons: int = 0,
    pretraining: bool = False,
) -> TrainingPlan:
    """Return the training of an experiment; ``settings`` are texts, the others as in ``RunConfiguration``."""
    # ``pretraining``: whether other trainings start from it, for which a profile may have another recipe.
    identity = {"benchmark": benchmark.specification, "data": benchmark.fingerprint}
    identity |= {"seed": seed, "start": start, "validation_persons": validation_persons}
    configuration, changed = configure(experiment, profile, settings, pretraining=pretraining, **identity)
    name = f"{run_name(experiment, profile, benchmark.specification)}{seed}"
    if start:
        name += "-pretrained"
    if validation_persons:
        name += f"-validate{validation_persons}"
    if changed:  # such as "-model.parts=6,recipe.epochs=40", unlike the folder of the row itself
        text = ",".join(f"{field}={json.dumps(value)}" for field, value in changed.items())
        name += "-" + files.short_name(re.sub(r"[^\w.=,+-]", "", text), 80)
    return TrainingPlan(name, configuration, benchmark)


def run_name(experiment: str, profile: Profile, specification: str) -> str:
    """Return the beginning of the names of a row's runs, up to the seed."""
    return f"{experiment}-{profile.name}-{files.safe_name(specification)}-seed"


def plan_chain(
    experiment: str,
    profile: Profile,
    benchmark: Benchmark,
    *,
    before: Sequence[Benchmark] = (),
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    validation_persons: int = 0,
) -> tuple[TrainingPlan, ...]:
    """Return trainings on each benchmark of ``before`` and on ``benchmark``, each starting from the last."""
    # JLML was trained like this for small sets: on CUHK03 and Market-1501 together (``combine``), then on the
    # target, with new classifiers.
    _, validation = hold_out(benchmark, validation_persons, seed)
    for data in before:
        if overlap := describe_overlap(data, data.train, benchmark, *([validation] if validation else [])):
            rule = "pre-training uses no test or validation person"
            value = f"{overlap}, in the training images of {data.specification}"
            raise InputError(rule, value, f"pre-train on another benchmark{NUMBERS_MEND}")
    links: list[TrainingPlan] = []
    # A recipe that is set is the last training's: recipes are compared from one start, which is trained once.
    of_all = {name: text for name, text in (settings or {}).items() if not name.startswith("recipe.")}
    for data in (*before, benchmark):
        start = configuration_hash(links[-1].configuration.to_json()) if links else ""
        persons = validation_persons if data is benchmark else 0
        set_here = settings if data is benchmark else of_all
        options = {"seed": seed, "start": start, "settings": set_here, "validation_persons": persons}
        # Combined sets are for pre-training, also where it is planned alone.
        options["pretraining"] = data is not benchmark or bool(data.members)
        links.append(plan_training(experiment, profile, data, **options))
    return tuple(links)


def obtain(
    links: Sequence[TrainingPlan],
    *,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    may_train: bool = True,
    since: float | None = None,
    scorable: bool = True,
) -> Run:
    """Return the run of a chain's last training with its scores; train and evaluate what is missing.

    Earlier trainings of the chain are done only if the last run is missing. A run that was copied without its
    weights is used with the scores that it has. In a ``distributed.process_group`` every process calls this:
    the first one finds and evaluates runs, and all of them train a missing run together.

    Args:
        links: The trainings of a chain, in order.
        runs: Folder of trained runs; ``files.runs()`` by default.
        execution: Device, precision and progress.
        may_train: Whether a missing run is trained.
        since: Seconds since 1970; a training that failed later is not tried again.
        scorable: Whether the last training's benchmark must have test images; False for pre-training.

    Returns:
        The finished and evaluated run.

    Raises:
        InputError: If a run is missing and ``may_train`` is False, a benchmark differs from that of its
            configuration, the training images fill no batch, or a training failed after ``since``.
        FloatingPointError: If a loss becomes infinite or NaN.
    """
    if scorable:
        links[-1].benchmark.check_scorable()
    execution = execution or Execution()
    folder = Path(runs).expanduser() if runs else files.runs()
    first = 0  # index of the first training whose run is needed
    if len(links) > 1:  # searched once for all processes, because another command may be training too
        if distributed.world().rank == 0:
            with distributed.raise_on_all_processes():
                exists = [find(link.configuration.to_json(), folder) is not None for link in links]
                first = max((index for index, exist in enumerate(exists) if exist), default=0)
        first = distributed.broadcast_from_first(first)
    for link in links[first:]:  # all checks come before the first training
        check_run_data(link.configuration, link.benchmark)
        if may_train:
            link.check_set()
        distributed.check_batch_size(link.recipe.batch_size)
    run: Run | None = None
    for link in links[first:]:
        if run is not None:  # it may be a run on the same partitions under another path
            start = configuration_hash(run.configuration)
            link = link._replace(configuration=replace(link.configuration, start=start))
        content = link.configuration.to_json()
        if not may_train and find(content, folder) is None:
            failure = find_failure(content, folder)
            raise InputError(
                "with may_train=False the run must exist",
                f"no {link.name} in {folder}" + (f"; its training failed: {failure}" if failure else ""),
                "train it, or copy it there; the report's folder tasks says why a training failed",
            )
        run = _obtain(link, folder, execution, since)
    assert run is not None  # a chain has at least one training
    return run


def _obtain(link: TrainingPlan, folder: Path, execution: Execution, since: float | None) -> Run:
    name, configuration, benchmark = link

    def train_run(run_folder: Path) -> dict:
        split, held_out = link.divide()
        labels_n, identities_k = training_labels(split.person_ids)
        images, validation_images = _open_images(link, execution)
        validate = None
        if held_out is not None and validation_images is not None:
            validate = Validation(held_out, validation_images, link.recipe, split)
        information = train(
            _initial_model(configuration, len(identities_k), folder),
            cast("Objective", configuration.model.objective),
            images,
            torch.from_numpy(labels_n),
            link.recipe,
            folder=run_folder,
            seed=configuration.seed,
            execution=execution,
            title=name,
            balance=configuration.model.balance,
            validate=validate,
        )
        # The default folder of `reidlib evaluate`; the fingerprint tells whether the data are the same.
        roots = [str(data.root.absolute()) for data in benchmark.members or (benchmark,)]
        information |= {"training_persons": len(identities_k), "training_images": len(split)}
        return {**information, "data_root": roots[0]} | ({"data_roots": roots} if benchmark.members else {})

    if distributed.world().rank > 0:
        # The first process sends a folder to train in, if the run is missing, and finally the run's folder.
        message, path = distributed.broadcast_from_first()
        if message == "train":
            train_run(Path(path))
            _, path = distributed.broadcast_from_first()
        return Run(Path(path))

    def train_on_all_processes(run_folder: Path) -> dict:
        distributed.broadcast_from_first(("train", str(run_folder)))
        return train_run(run_folder)

    content = configuration.to_json()
    with distributed.raise_on_all_processes():
        run = find_or_train(content, train_on_all_processes, name=name, folder=folder, since=since)
        if not (benchmark.training_only or is_scored(run, benchmark)):
            evaluate_run(run, benchmark, execution=execution)
    distributed.broadcast_from_first(("found", str(run.folder)))
    return run


def _open_images(link: TrainingPlan, execution: Execution) -> tuple[ImageStore, ImageStore | None]:
    """Return the images of training and validation; raise UnreadableImagesError for those of all splits."""
    # All splits are decoded now: a damaged query image must not appear after hours of training.
    _, configuration, benchmark = link
    unreadable: list[UnreadableImage] = []
    stores: list[ImageStore | None] = []
    for split in (*link.divide(), benchmark.query, benchmark.gallery):
        if not split:  # no validation, or no test images
            stores.append(None)
            continue
        device = execution.torch_device if len(stores) < 2 else "cpu"
        try:
            store = ImageStore.open(
                split.paths,
                configuration.input_size,
                resize=configuration.resize,
                device=device,
                progress=execution.progress,
            )
            stores.append(store)
        except UnreadableImagesError as error:
            stores.append(None)
            unreadable += error.images
    if benchmark.boxes is not None:  # decoded as a check only
        decoded = {*benchmark.query.paths, *benchmark.gallery.paths}
        paths = [path for path in benchmark.boxes.paths if path not in decoded]
        blocks = decode_blocks(paths, (1, 1), title="reading boxes", progress=execution.progress)
        unreadable += [image for block in blocks for image in block if isinstance(image, UnreadableImage)]
    if unreadable:
        raise UnreadableImagesError(unreadable)
    images, validation_images, *_ = stores
    assert images is not None
    return images, validation_images


def _initial_model(configuration: RunConfiguration, num_classes: int, runs: Path) -> torch.nn.Module:
    """Return the network before its first step: new, or with another run's weights and new classifiers."""
    if not configuration.start:
        return configuration.model.build(num_classes, configuration.seed)
    start = find_by_hash(configuration.start, runs)
    if start is None:
        raise InputError(
            "a training that starts from another run needs that run",
            f"no finished run …-{configuration.start} in {runs}",
            "train both with `reidlib train --pretrain`, or copy that run's folder there",
        )
    # Without pretrained weights, which the run's weights would replace.
    model = replace(configuration.model, weights=None).build(num_classes, configuration.seed)
    weights = {key: tensor for key, tensor in start.weights().items() if not key.startswith("classifiers.")}
    try:
        keys = model.load_state_dict(weights, strict=False)
        missing = [name for name in keys.missing_keys if not name.startswith("classifiers.")]
        reason = "other layers" if keys.unexpected_keys or missing else ""
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
    if reason:
        raise InputError(
            "a training starts from a run of the same network",
            f"{start.folder.name}: {reason}",
            "start from a run of the same row and profile",
        )
    return model
