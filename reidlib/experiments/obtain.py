"""Every training as a literal row, and a run with its scores.

A profile says how large a run is; a row of ``EXPERIMENTS`` says what is trained. Their product is a
``RunConfiguration``, and ``obtain`` gives its run: found if it was trained before, else trained.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from reidlib import files
from reidlib.data import load_specified
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode_blocks
from reidlib.data.splits import training_labels
from reidlib.data.synthetic.render import render
from reidlib.errors import InputError, shorten
from reidlib.experiments.evaluate import check_data_of, current, evaluate_run, open_images, usable
from reidlib.experiments.profile_names import SYNTHETIC_SIZES, check_data, check_profile
from reidlib.experiments.profiles import PROFILES, Profile
from reidlib.training import distributed
from reidlib.training.config import (
    JLMLConfiguration,
    ModelConfiguration,
    PyramidConfiguration,
    RunConfiguration,
)
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balancing
from reidlib.training.loop import train
from reidlib.training.runs import Run, configuration_hash, failure_of, find, find_hash, find_or_train


@dataclass(frozen=True)
class Experiment:
    """One training: what of a paper's defaults it changes."""

    model: ModelConfiguration
    trunk_rate: float = 1.0  # factor on the recipe's, for a trunk that starts from random weights


_JLML = JLMLConfiguration()
_PYRAMID = PyramidConfiguration()
EXPERIMENTS = {
    "jlml": Experiment(_JLML),
    "jlml-uniloss": Experiment(replace(_JLML, multi_loss=False)),
    "jlml-separate": Experiment(replace(_JLML, shared_stem=False)),
    # Selective feature learning: off, and ten and a hundred times the paper's strength. Without the batch
    # norm behind the feature layers, which undoes a change of scale, sparsity may do something else.
    "jlml-sfl-off": Experiment(replace(_JLML, sparsity_global=0.0, sparsity_local=0.0)),
    "jlml-sfl-x10": Experiment(replace(_JLML, sparsity_global=5e-3, sparsity_local=5e-3)),
    "jlml-sfl-x100": Experiment(replace(_JLML, sparsity_global=5e-2, sparsity_local=5e-2)),
    "jlml-no-norm": Experiment(replace(_JLML, feature_norm=False)),
    "jlml-no-norm-sfl-off": Experiment(
        replace(_JLML, feature_norm=False, sparsity_global=0.0, sparsity_local=0.0)
    ),
    "jlml-2": Experiment(replace(_JLML, parts=2)),
    "jlml-6": Experiment(replace(_JLML, parts=6)),
    "jlml-8": Experiment(replace(_JLML, parts=8)),
    "jlml-10": Experiment(replace(_JLML, parts=10)),
    "pyramid": Experiment(_PYRAMID),
    # Dynamic training: the other modes, the paper's weights unscaled, and the identity loss alone.
    "pyramid-literal": Experiment(replace(_PYRAMID, balancing=Balancing("paper", weights="literal"))),
    "pyramid-official": Experiment(replace(_PYRAMID, balancing=Balancing("official"))),
    "pyramid-off": Experiment(replace(_PYRAMID, balancing=Balancing("off"))),
    "pyramid-identity": Experiment(replace(_PYRAMID, triplet=False)),
    # Levels of the pyramid over six stripes, and pyramids over fewer. The losses are sums over the parts, so
    # that the trunk of a network with fewer parts would learn from a smaller gradient, and the row would show
    # that instead: its rate makes up for it.
    "pyramid-global": Experiment(replace(_PYRAMID, levels=(6,)), trunk_rate=21 / 1),
    "pyramid-stripes": Experiment(replace(_PYRAMID, levels=(1,)), trunk_rate=21 / 6),
    "pyramid-2": Experiment(replace(_PYRAMID, stripes=2), trunk_rate=21 / 3),
    "pyramid-3": Experiment(replace(_PYRAMID, stripes=3), trunk_rate=21 / 6),
    "pyramid-4": Experiment(replace(_PYRAMID, stripes=4), trunk_rate=21 / 10),
    # The other reading of "the same training": the same rate, whatever the parts.
    "pyramid-global-same-rate": Experiment(replace(_PYRAMID, levels=(6,))),
    "pyramid-stripes-same-rate": Experiment(replace(_PYRAMID, levels=(1,))),
}


def check_experiment(name: str) -> None:
    """Raises InputError for a name that is no row of ``EXPERIMENTS``."""
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(str(name), EXPERIMENTS, 1) or list(EXPERIMENTS)
        raise InputError(f"a model is one of {', '.join(EXPERIMENTS)}", repr(name), f"try {near[0]!r}")


def profile_named(experiment: str, name: str) -> Profile:
    """A profile of an experiment's model by its name. Raises InputError for an unknown one."""
    check_profile(name)
    return PROFILES[type(EXPERIMENTS[experiment].model)][name]


def open_benchmark(
    profile: str, benchmark: str = "synthetic", data_root: str | Path | None = None, *, device: str = "auto"
) -> Benchmark:
    """The benchmark that a profile trains on.

    ``benchmark`` may name options of its reader (``cuhk03,boxes=detected,trial=3``).
    The embedded one is rendered to ``files.data()`` if it is not there yet; any other is read from
    ``data_root``. Raises InputError when a folder is needed and not given.
    """
    check_data(profile, benchmark, data_root)
    if not data_root:
        size = SYNTHETIC_SIZES[profile]
        data_root = render(size, files.data() / f"synthetic-{size}", device=rendering_device(device))
    return load_specified(benchmark, Path(data_root))


def rendering_device(device: str) -> torch.device:
    """Where to render: the device, but the CPU instead of mps, whose integers are not 64 bits wide."""
    found = Execution(device=device).torch_device
    return torch.device("cpu") if found.type == "mps" else found


def configuration(
    experiment: str, profile: str, benchmark: Benchmark, *, seed: int = 0, start: str = ""
) -> RunConfiguration:
    """A row of ``EXPERIMENTS`` in the size of a profile; ``start`` as in ``RunConfiguration``."""
    check_experiment(experiment)
    size, row = profile_named(experiment, profile), EXPERIMENTS[experiment]
    model = replace(row.model, **size.scaled)
    factor = row.trunk_rate if model.weights is None else 1
    return RunConfiguration(
        model=model,
        recipe=replace(size.recipe, trunk_rate=factor * size.recipe.trunk_rate),
        input_size=size.input_size,
        benchmark=benchmark.specification,
        data=benchmark.fingerprint,
        seed=seed,
        start=start,
    )


def run_name(experiment: str, profile: str, benchmark: Benchmark, seed: int) -> str:
    """The readable beginning of a run's folder."""
    # Some specifications hold what no file name may.
    data = re.sub(r"[^\w.=,+-]", "-", benchmark.specification)
    return f"{experiment}-{profile}-{data}-seed{seed}"


class Link(NamedTuple):
    """One training of a chain."""

    name: str
    wanted: RunConfiguration
    benchmark: Benchmark

    def check_set(self) -> None:
        """Raise InputError where the training images fill no batch."""
        self.wanted.recipe.check_set(self.benchmark.train.person_ids, self.benchmark.specification)


def chain(
    experiment: str, profile: str, benchmark: Benchmark, *, before: Sequence[Benchmark] = (), seed: int = 0
) -> tuple[Link, ...]:
    """A training on ``benchmark`` that starts from one on each of ``before``, the first of them first.

    This is how JLML was trained for small sets: on CUHK03 and Market-1501 together (``records.joined``), then
    on the target, with new classifiers. Raises InputError where a test image would be trained on.
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
        wanted = configuration(experiment, profile, data, seed=seed, start=start)
        name = run_name(experiment, profile, data, seed) + ("-pretrained" if start else "")
        links.append(Link(name, wanted, data))
    return tuple(links)


def with_seeds(configuration: RunConfiguration, seeds: int) -> list[RunConfiguration]:
    """The same training with the seeds 0 to ``seeds - 1``. Raises InputError for less than one."""
    if not isinstance(seeds, int) or seeds < 1:
        raise InputError(
            "a configuration is trained at least once", f"seeds={seeds!r}", "use seeds=1 or more"
        )
    return [replace(configuration, seed=seed) for seed in range(seeds)]


def obtain(
    wanted: RunConfiguration,
    benchmark: Benchmark,
    *,
    name: str,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    report: Callable[[str], None] = print,
    may_train: bool = True,
    since: float | None = None,
) -> Run:
    """The run of a configuration with its scores: whatever is missing is trained and evaluated.

    name: readable beginning of the run's folder. runs: where runs are kept (``files.runs()``).
    may_train: False refuses (InputError) where the run is not there yet. since: as in ``find_or_train``.

    A run that was carried here without its weights is used with the scores that it has. One that starts
    from another run's weights (``wanted.start``) is trained where that run is among ``runs``; see
    ``obtain_chain``.

    Where ``torchrun`` started several processes, all of them call this: the first one looks for the run and
    evaluates it, and if it is missing all of them train it together.
    """
    execution = execution or Execution()
    check_data_of(wanted, benchmark)
    if may_train:
        wanted.recipe.check_set(benchmark.train.person_ids, benchmark.specification)
    distributed.check_share(wanted.recipe.batch_size)

    def train_it(folder: Path) -> dict:
        labels_n, identities_k = training_labels(benchmark.train.person_ids)
        model = _initial_model(wanted, len(identities_k), Path(runs) if runs else files.runs())
        images = _all_images(benchmark, wanted.input_size, execution)
        information = train(
            model,
            wanted.model.objective,
            images,
            torch.from_numpy(labels_n),
            wanted.recipe,
            folder=folder,
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

    folder = Path(runs) if runs else files.runs()
    if not may_train and find(wanted.to_json(), folder) is None:
        failure = failure_of(wanted.to_json(), folder)
        raise InputError(
            "this run is to be there already",
            f"no {name} in {folder}" + (f"; its training failed: {failure}" if failure else ""),
            "train it, or copy it there; the report's folder tasks says why a training failed",
        )
    with distributed.refusing_together():
        run = find_or_train(
            wanted.to_json(), train_together, name=name, folder=folder, report=report, since=since
        )
        if not current(run, benchmark) and not (usable(run) and not run.has_weights):
            evaluate_run(run, benchmark, execution=execution)
    distributed.from_first(("found", str(run.folder)))
    return run


def obtain_chain(
    links: Sequence[Link],
    *,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    report: Callable[[str], None] = print,
    may_train: bool = True,
    since: float | None = None,
) -> Run:
    """The run of a chain's last link; the links before it are wanted only where it is not there yet.

    The arguments are those of ``obtain``. Raises InputError like it.
    """
    folder = Path(runs) if runs else files.runs()
    needed = 0
    if distributed.world().rank == 0:  # one look for all processes: another command may be training, too
        with distributed.refusing_together():
            there = [find(link.wanted.to_json(), folder) is not None for link in links]
            needed = max((place for place, found in enumerate(there) if found), default=0)
    needed = distributed.from_first(needed)
    if may_train:
        for link in links[needed:]:  # all of them before the first is trained
            link.check_set()
    for link in links[needed:]:
        run = obtain(
            link.wanted,
            link.benchmark,
            name=link.name,
            runs=runs,
            execution=execution,
            report=report,
            may_train=may_train,
            since=since,
        )
    return run


def _all_images(benchmark: Benchmark, size: tuple[int, int], execution: Execution) -> ImageStore:
    """The training images, after every other image was decoded too, the unreadable ones of all named at once.

    A broken query image must not be found after hours of training.
    """
    unreadable: list[Unreadable] = []
    images = None
    for split in (benchmark.query, benchmark.gallery, benchmark.train):
        where = execution if split is benchmark.train else replace(execution, device="cpu")
        try:
            images = open_images(split, size, where)
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
            "train that one first (experiments.obtain_chain does), or copy it there",
        )
    # What would be downloaded from elsewhere is replaced at once.
    model = replace(wanted.model, weights=None).build(num_classes, wanted.seed)
    carried = {name: one for name, one in before.weights().items() if not name.startswith("classifiers.")}
    try:
        left = model.load_state_dict(carried, strict=False)
    except RuntimeError as error:
        left, reason = None, str(error).partition("\n")[0]
    if (
        left is None
        or left.unexpected_keys
        or not all(n.startswith("classifiers.") for n in left.missing_keys)
    ):
        raise InputError(
            "a training starts from a run of the same network",
            f"{before.folder.name}: {reason if left is None else 'other layers'}",
            "start from a run of the same row and profile",
        )
    return model
