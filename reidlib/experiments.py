"""Every training as a literal row, and a run with its scores.

A profile says how large a run is; a row of ``EXPERIMENTS`` says what is trained. Their product is a
``RunConfiguration``, and ``obtain`` gives its run: found if it was trained before, else trained.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reidlib import distributed, locations
from reidlib.balancing import Balancing
from reidlib.configuration import (
    JLMLConfiguration,
    ModelConfiguration,
    PyramidConfiguration,
    RunConfiguration,
)
from reidlib.data import load
from reidlib.data.augmentation import Augmentation
from reidlib.data.records import Benchmark, training_labels
from reidlib.data.synthetic import render
from reidlib.errors import InputError
from reidlib.evaluation import check_data_of, current, evaluate_run, open_images, usable
from reidlib.execution import Execution
from reidlib.profiles import SYNTHETIC_SIZES, check_data, check_profile
from reidlib.recipe import Recipe
from reidlib.runs import Run, failure_of, find, find_or_train
from reidlib.training import train


@dataclass(frozen=True)
class Profile:
    """How large a run is: the network's input, what of its configuration is scaled, and the recipe."""

    input_size: tuple[int, int]  # height, width in pixels
    scaled: Mapping[str, object]  # fields of the model's configuration and their values in this profile
    recipe: Recipe


JLML_PROFILES = {
    # Seconds: does everything run? Its scores mean nothing.
    "smoke": Profile((64, 32), {"width": 0.25}, Recipe(epochs=2, batch_size=16)),
    # Two CPU cores: the smallest network and input at which the papers' effects show.
    "quick": Profile((128, 64), {"width": 0.5}, Recipe(epochs=20)),
    # One GPU: the paper's network and input at Market-1501's size, trained from random weights.
    "full": Profile((224, 224), {}, Recipe(epochs=60, augmentation=Augmentation(pad=10))),
    # JLML §4: 50,000 iterations of 32 images, rate 0.01, divided by ten every 20,000; we assume no
    # augmentation and Caffe's usual weight decay. Without the paper's ImageNet pre-training.
    "paper": Profile(
        (224, 224),
        {},
        Recipe(
            steps=50_000,
            learning_rate=0.01,
            schedule="steps",
            milestones=(0.4, 0.8),
            nesterov=False,
            augmentation=Augmentation(flip=0, pad=0),
        ),
    ),
}

# From random weights, unscaled triplets with a margin of 1.4 pull everything together before identities come
# apart. With embeddings of unit length, in the triplets and in matching (as YouReID has it), they do not.
_UNIT_LENGTH = {"weights": None, "normalise_triplet": True, "normalisation": "part"}
_SMALL_PYRAMID = {**_UNIT_LENGTH, "trunk": "resnet39"}
PYRAMID_PROFILES = {
    # 192 rows: a map of 12, which 2, 3, 4 and 6 stripes divide.
    "smoke": Profile(
        (192, 32),
        {**_SMALL_PYRAMID, "width": 0.25, "embedding_size": 16},
        Recipe(epochs=2, batch_size=16, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
    "quick": Profile(
        (192, 64),
        {**_SMALL_PYRAMID, "width": 0.5},
        Recipe(epochs=14, batch_size=32, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
    # The paper's input, at Market-1501's size, with a trunk for which random weights are enough.
    "full": Profile(
        (384, 128),
        {**_UNIT_LENGTH, "trunk": "resnet50"},
        Recipe(
            epochs=60,
            batch_size=64,
            images_per_identity=8,
            learning_rate=0.08,
            trunk_rate=0.25,
            augmentation=Augmentation(pad=10, erase=0.2),
        ),
    ),
    # Zheng et al. and their released code: 120 epochs, rates halved behind the epochs 60, 70, 80, 90 and 100.
    # An epoch is as many batches as fit into the images (theirs of balanced batches is half as long).
    "paper": Profile(
        (384, 128),
        {"weights": "imagenet"},
        Recipe(
            epochs=120,
            batch_size=64,
            images_per_identity=8,
            learning_rate=0.1,
            trunk_rate=0.1,
            schedule="steps",
            milestones=(60 / 120, 70 / 120, 80 / 120, 90 / 120, 100 / 120),
            decay=0.5,
            nesterov=False,
            augmentation=Augmentation(pad=0, erase=0.2),
        ),
    ),
}
# By the type of the model's configuration.
PROFILES = {JLMLConfiguration: JLML_PROFILES, PyramidConfiguration: PYRAMID_PROFILES}


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

    The embedded one is rendered to ``locations.data()`` if it is not there yet; any other is read from
    ``data_root``. Raises InputError when a folder is needed and not given.
    """
    check_data(profile, benchmark, data_root)
    if not data_root:
        size = SYNTHETIC_SIZES[profile]
        data_root = render(size, locations.data() / f"synthetic-{size}", device=rendering_device(device))
    return load(benchmark, Path(data_root))


def rendering_device(device: str) -> torch.device:
    """Where to render: the device, but the CPU instead of mps, whose integers are not 64 bits wide."""
    found = Execution(device=device).torch_device
    return torch.device("cpu") if found.type == "mps" else found


def configuration(experiment: str, profile: str, benchmark: Benchmark, *, seed: int = 0) -> RunConfiguration:
    """A row of ``EXPERIMENTS`` in the size of a profile."""
    check_experiment(experiment)
    size, row = profile_named(experiment, profile), EXPERIMENTS[experiment]
    model = replace(row.model, **size.scaled)
    factor = row.trunk_rate if model.weights is None else 1
    return RunConfiguration(
        model=model,
        recipe=replace(size.recipe, trunk_rate=factor * size.recipe.trunk_rate),
        input_size=size.input_size,
        benchmark=benchmark.name,
        data=benchmark.fingerprint,
        seed=seed,
    )


def run_name(experiment: str, profile: str, benchmark: Benchmark, seed: int) -> str:
    """The readable beginning of a run's folder."""
    return f"{experiment}-{profile}-{benchmark.name}-seed{seed}"


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
) -> Run:
    """The run of a configuration with its scores: whatever is missing is trained and evaluated.

    name: readable beginning of the run's folder. runs: where runs are kept (``locations.runs()``).
    may_train: False refuses (InputError) where the run is not there yet.

    A run that was carried here without its weights is used with the scores that it has.

    Where ``torchrun`` started several processes, all of them call this: the first one looks for the run and
    evaluates it, and if it is missing all of them train it together.
    """
    execution = execution or Execution()
    check_data_of(wanted, benchmark)
    distributed.check_share(wanted.recipe.batch_size)

    def train_it(folder: Path) -> dict:
        labels_n, identities_k = training_labels(benchmark.train.person_ids)
        model = wanted.model.build(len(identities_k), wanted.seed)
        # All splits are decoded first: a broken query image must not be found after hours of training.
        for split in (benchmark.query, benchmark.gallery):
            open_images(split, wanted.input_size, replace(execution, device="cpu"))
        images = open_images(benchmark.train, wanted.input_size, execution)
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

    folder = Path(runs) if runs else locations.runs()
    if not may_train and find(wanted.to_json(), folder) is None:
        failure = failure_of(wanted.to_json(), folder)
        raise InputError(
            "this run is to be there already",
            f"no {name} in {folder}" + (f"; its training failed: {failure}" if failure else ""),
            "train it, or copy it there",
        )
    with distributed.refusing_together():
        run = find_or_train(wanted.to_json(), train_together, name=name, folder=folder, report=report)
        if not current(run, benchmark) and not (usable(run) and not run.has_weights):
            evaluate_run(run, benchmark, execution=execution)
    distributed.from_first(("found", str(run.folder)))
    return run
