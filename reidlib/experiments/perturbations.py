"""Trained runs on the embedded benchmark's test images with one cause of variation turned.

The training images stay as they are, and so do the persons, poses, cameras and file names of the test
images: only the one thing changes from image to image, so that scores pair query by query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.market import (
    RENDERING_FILE,
    check_rendered_count,
    index_market_folder,
    rendering_counts,
)
from reidlib.data.splits import Split
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.render import SIZES, TEST_SPLITS, fingerprint, render
from reidlib.errors import InputError
from reidlib.experiments.evaluate import (
    AVERAGE_PRECISIONS,
    TABLE_RANKS,
    branch_of,
    evaluate_run,
    score_record,
    usable,
)
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.rows import Perturbation
from reidlib.files import find_json, write_json
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# A Pyramid's levels are left out.
BRANCHES = ("full", "global", "local")
_FORMAT = 1


def open_perturbed(
    condition: Perturbation,
    size: str,
    folder: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[Split, Split]:
    """The embedded benchmark's query and gallery under a condition, rendered unless they are there.

    size: of ``render.SIZES``. folder: where to render to, by default one of the condition's own under
    ``files.data()`` (about 20 MB at the size quick), which may be removed at any time. The default
    value is the benchmark itself, which lies there in any case and is not rendered a second time.
    Raises InputError like ``render.render``, and for a folder that has lost some of its images.
    """
    splits = {} if condition.is_default else {"splits": TEST_SPLITS}
    folder = folder or _folder(condition, size)
    root = render(size, folder, factors=condition.factors, device=device, progress=progress, **splits)
    counts = rendering_counts(root, TEST_SPLITS)
    found = []
    for name in TEST_SPLITS:
        split, _ = index_market_folder(root / name)
        check_rendered_count(root / name, split, counts)
        found.append(split)
    return tuple(found)


def is_rendered(condition: Perturbation, size: str) -> bool:
    """Whether ``open_perturbed`` would find its images and not render them."""
    return (_folder(condition, size) / RENDERING_FILE).is_file()


def _folder(condition: Perturbation, size: str) -> Path:
    own = f"synthetic-{size}" if condition.is_default else f"synthetic-{size}-{_file_name(condition)}"
    return files.data() / own


def stored_scores(run: Run, condition: Perturbation) -> dict | None:
    """What ``evaluate_under_all`` kept of a run, or None; it needs no weights, no images and no rendering.

    Scores of images that would be rendered in another way today, or of another training, are not found, nor
    are those in a damaged file: evaluating again mends it. Nothing is found for a run on another benchmark.
    """
    if run.configuration["benchmark"] != "synthetic":
        return None
    if condition.is_default:
        if not usable(run) or "query_person_ids" not in (kept := run.scores):
            return None
        return _as_condition(kept, condition, kept["query_person_ids"])
    kept = find_json(_path(run, condition)) or {}
    known = kept.get("size") in SIZES
    return kept if known and kept | _named(run, condition, kept["size"]) == kept else None


def _named(run: Run, condition: Perturbation, size: str) -> dict:
    """What tells a run's scores under a condition from any others, as it stands in their file."""
    return {
        "format": _FORMAT,
        "condition": asdict(condition),
        "size": size,
        "run_data": run.configuration["data"],
        "data": fingerprint(size, condition.factors),
    }


def evaluate_under_all(
    run: Run, conditions: Sequence[Perturbation], benchmark: Benchmark, *, execution: Execution | None = None
) -> dict[Perturbation, dict]:
    """A run's scores under each condition; what is missing is rendered and evaluated.

    The network is loaded once for all of them, and not at all where nothing is missing.

    benchmark: the embedded one that the run was trained on. Each condition's scores are
    ``{"condition": {"factor", "value"}, "data": a fingerprint, "query_person_ids", "branches": {name:
    {"step": …, "trapezoid": …}}}`` with the branches of ``BRANCHES`` that the network has and, of each
    definition of average precision, what ``scores.json`` holds, the ``cmc`` at ``TABLE_RANKS``. They
    are kept as ``conditions/FACTOR-VALUE.json`` in the run's folder as each is done, and found there again
    (``found``). The default value takes the run's own scores.

    Decoded images are not kept on disk: they pass through memory a few hundred at a time, beside the
    features of all test images.

    Raises InputError for a run trained on other data, another benchmark or other factors than the default
    ones, and where something is missing and the run was carried here without its weights.
    """
    execution = execution or Execution()
    scores = {condition: stored_scores(run, condition) for condition in conditions}
    missing = [condition for condition, kept in scores.items() if kept is None]
    if not missing:
        return scores
    network = TrainedNetwork.trained_on(benchmark, run, execution)
    size = size_of(benchmark)
    for condition in missing:
        if condition.is_default:
            if not usable(run):
                evaluate_run(run, benchmark, execution=execution)
            persons = benchmark.query.person_ids.tolist()  # scores of an older format lack them
            scores[condition] = _as_condition(run.scores, condition, persons)
            continue
        _ = network.model  # where the weights are missing nothing is rendered
        device = execution.rendering_device
        query, gallery = open_perturbed(condition, size, device=device, progress=execution.progress)
        scores[condition] = _named(run, condition, size) | {
            "query_person_ids": query.person_ids.tolist(),
            "branches": _scores(network, query, gallery),
        }
        write_json(_path(run, condition), scores[condition])
    return scores


def _scores(network: TrainedNetwork, query: Split, gallery: Split) -> dict[str, dict]:
    sides = [network.embed(split, keep="nothing") for split in (query, gallery)]
    columns, device = network.model.branches, network.execution.torch_device
    return {
        name: score_record(*(branch_of(side, columns[name], device) for side in sides), TABLE_RANKS)
        for name in BRANCHES
        if name in columns
    }


def _as_condition(scores: dict, condition: Perturbation, query_person_ids: list[int]) -> dict:
    """A run's own scores in the form of a condition's."""

    def shortened(kept: dict) -> dict:
        return {**kept, "cmc": {str(rank): kept["cmc"][str(rank)] for rank in TABLE_RANKS}}

    branches = scores["branches"]
    return {
        "condition": asdict(condition),
        "data": scores["data"],
        "query_person_ids": query_person_ids,
        "branches": {
            name: {kind: shortened(branches[name][kind]) for kind in AVERAGE_PRECISIONS}
            for name in BRANCHES
            if name in branches
        },
    }


def size_of(benchmark: Benchmark) -> str:
    """The size of a rendered benchmark with the default factors; InputError for any other benchmark."""
    asked = {"seed": 0, "factors": asdict(Factors())}
    rendering = {}
    if benchmark.name == "synthetic":  # whose reader has found the record sound
        rendering = json.loads((benchmark.root / RENDERING_FILE).read_text())
    if {name: rendering.get(name) for name in asked} != asked or rendering.get("size") not in SIZES:
        raise InputError(
            "conditions are changed in the embedded benchmark, rendered with the default factors and seed 0",
            f"{benchmark.name} in {benchmark.root}",
            "train and evaluate on benchmark='synthetic'",
        )
    return rendering["size"]


def _path(run: Run, condition: Perturbation) -> Path:
    return run.folder / "conditions" / f"{_file_name(condition)}.json"


def _file_name(condition: Perturbation) -> str:
    return f"{condition.factor}-{condition.value:g}"
