"""Scores of trained runs on the embedded benchmark's test images with one perturbed factor.

Training images are not perturbed. Perturbed test images keep their persons, poses, cameras and file names, so
scores can be compared query by query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
    evaluate_run,
    has_usable_scores,
    score_record,
    select_branch,
)
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.rows import Perturbation
from reidlib.files import find_json, write_json
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# Without the levels of a Pyramid.
BRANCHES = ("full", "global", "local")
_FORMAT = 1


def open_perturbed(
    perturbation: Perturbation,
    size: str,
    folder: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> tuple[Split, Split]:
    """Open the embedded benchmark's test images under a perturbation; render them if necessary.

    Args:
        perturbation: Factor and value; the default value is the benchmark itself.
        size: Size of the benchmark, a key of ``render.SIZES``.
        folder: Folder of the images; by default one in ``files.data()`` for each perturbation (about 20 MB at
            size quick), which may be removed at any time.
        device: Device of the renderer.
        progress: Whether to show a progress bar.

    Returns:
        Query and gallery.

    Raises:
        InputError: If the folder cannot be written, holds other images, or lacks some of its images.
    """
    splits: dict[str, Any] = {} if perturbation.is_default else {"splits": TEST_SPLITS}
    folder = folder or _folder(perturbation, size)
    root = render(size, folder, factors=perturbation.factors, device=device, progress=progress, **splits)
    counts = rendering_counts(root, TEST_SPLITS)
    test_splits = []
    for name in TEST_SPLITS:
        split, _ = index_market_folder(root / name)
        check_rendered_count(root / name, split, counts)
        test_splits.append(split)
    query, gallery = test_splits
    return query, gallery


def is_rendered(perturbation: Perturbation, size: str) -> bool:
    """Return whether the images of a perturbation are rendered already."""
    return (_folder(perturbation, size) / RENDERING_FILE).is_file()


def _folder(perturbation: Perturbation, size: str) -> Path:
    suffix = "" if perturbation.is_default else f"-{_file_name(perturbation)}"
    return files.data() / f"synthetic-{size}{suffix}"


def stored_scores(run: Run, perturbation: Perturbation) -> dict | None:
    """Return a run's stored scores under a perturbation, or None without valid ones."""
    # Needs neither weights nor images. Scores are invalid if the images would be rendered differently today,
    # if they belong to another training, or if the file is damaged.
    if run.configuration["benchmark"] != "synthetic":
        return None
    if perturbation.is_default:
        scores = (run.scores or {}) if has_usable_scores(run) else {}
        if "query_person_ids" not in scores:
            return None
        return _convert_scores(scores, perturbation, scores["query_person_ids"])
    scores = find_json(_path(run, perturbation)) or {}
    if scores.get("size") not in SIZES:
        return None
    return scores if scores | _header(run, perturbation, scores["size"]) == scores else None


def _header(run: Run, perturbation: Perturbation, size: str) -> dict:
    """Return the entries that identify a run's scores under a perturbation."""
    return {
        "format": _FORMAT,
        "condition": asdict(perturbation),
        "size": size,
        "run_data": run.configuration["data"],
        "data": fingerprint(size, perturbation.factors),
    }


def evaluate_perturbations(
    run: Run,
    perturbations: Sequence[Perturbation],
    benchmark: Benchmark,
    *,
    execution: Execution | None = None,
) -> dict[Perturbation, dict]:
    """Return a run's scores under each perturbation; render and evaluate what is missing."""
    # A perturbation's scores are ``{"condition": {"factor", "value"}, "data": a fingerprint,
    # "query_person_ids", "branches": {name: {"step": …, "trapezoid": …}}}``: those of ``BRANCHES`` that the
    # network has, as in ``scores.json`` but with the ``cmc`` at ``TABLE_RANKS``. They are written to
    # ``conditions/FACTOR-VALUE.json`` in the run's folder, each when it is finished. The default value uses
    # the run's scores. Decoded images are not cached on disk and take memory for a few hundred at a time.
    execution = execution or Execution()
    stored = {perturbation: stored_scores(run, perturbation) for perturbation in perturbations}
    scores = {perturbation: record for perturbation, record in stored.items() if record is not None}
    missing = [perturbation for perturbation in stored if perturbation not in scores]
    if not missing:
        return scores
    network = TrainedNetwork.for_benchmark(benchmark, run, execution)
    size = rendered_size(benchmark)
    for perturbation in missing:
        if perturbation.is_default:
            if not has_usable_scores(run):
                evaluate_run(run, benchmark, execution=execution)
            persons = benchmark.query.person_ids.tolist()  # scores of an old format lack them
            scores[perturbation] = _convert_scores(run.scores or {}, perturbation, persons)
            continue
        _ = network.model  # raises InputError before rendering if the weights are missing
        device = execution.rendering_device
        query, gallery = open_perturbed(perturbation, size, device=device, progress=execution.progress)
        scores[perturbation] = _header(run, perturbation, size) | {
            "query_person_ids": query.person_ids.tolist(),
            "branches": _evaluate_branches(network, query, gallery),
        }
        write_json(_path(run, perturbation), scores[perturbation])
    return {perturbation: scores[perturbation] for perturbation in stored}


def _evaluate_branches(network: TrainedNetwork, query: Split, gallery: Split) -> dict[str, dict]:
    embeddings = [network.embed(split, keep="nothing") for split in (query, gallery)]
    columns, device = network.model.branches, network.execution.torch_device
    scores = {}
    for name in BRANCHES:
        if name in columns:
            branch_query, branch_gallery = (select_branch(e, columns[name], device) for e in embeddings)
            scores[name] = score_record(branch_query, branch_gallery, TABLE_RANKS)
    return scores


def _convert_scores(scores: dict, perturbation: Perturbation, query_person_ids: list[int]) -> dict:
    """Return a run's own scores in the form of a perturbation's."""

    def shorten_cmc(record: dict) -> dict:
        return {**record, "cmc": {str(rank): record["cmc"][str(rank)] for rank in TABLE_RANKS}}

    branches = scores["branches"]
    return {
        "condition": asdict(perturbation),
        "data": scores["data"],
        "query_person_ids": query_person_ids,
        "branches": {
            name: {definition: shorten_cmc(branches[name][definition]) for definition in AVERAGE_PRECISIONS}
            for name in BRANCHES
            if name in branches
        },
    }


def rendered_size(benchmark: Benchmark) -> str:
    """Return the size of the embedded benchmark with default factors; InputError for any other benchmark."""
    defaults = {"seed": 0, "factors": asdict(Factors())}
    rendering = {}
    if benchmark.name == "synthetic":  # its reader has checked the file
        rendering = json.loads((benchmark.root / RENDERING_FILE).read_text(encoding="utf-8"))
    if {name: rendering.get(name) for name in defaults} != defaults or rendering.get("size") not in SIZES:
        raise InputError(
            "perturbations need the embedded benchmark, rendered with the default factors and seed 0",
            f"{benchmark.name} in {benchmark.root}",
            "train and evaluate on benchmark='synthetic'",
        )
    return rendering["size"]


def _path(run: Run, perturbation: Perturbation) -> Path:
    return run.folder / "conditions" / f"{_file_name(perturbation)}.json"


def _file_name(perturbation: Perturbation) -> str:
    return f"{perturbation.factor}-{perturbation.value:g}"
