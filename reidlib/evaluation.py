"""A trained run's network on test images: features, scores by branch, ranked lists kept with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from reidlib.configuration import RunConfiguration
from reidlib.data.images import ImageStore
from reidlib.data.records import Benchmark, Split
from reidlib.embedding import embed_split
from reidlib.errors import InputError
from reidlib.execution import Execution
from reidlib.files import write_json, write_whole
from reidlib.ranking import Embeddings, RankedLists, evaluate, ranked_list
from reidlib.runs import Run

# Ranks of the CMC curve that is kept with a run.
CMC_RANKS = tuple(range(1, 51))
# Ranked lists that are kept with a run, so that figures need no weights: of this many worst, middle and
# best queries by average precision, this many images.
LISTED_QUERIES, LISTED_IMAGES = 64, 20


def open_images(split: Split, size: tuple[int, int], execution: Execution) -> ImageStore:
    """A split's images at the network's input size, decoded once and found again later."""
    return ImageStore.open(split.paths, size, device=execution.torch_device, progress=execution.progress)


def trained_model(run: Run, benchmark: Benchmark) -> torch.nn.Module:
    """A run's network with its trained weights, on the CPU in evaluation mode."""
    wanted = RunConfiguration.from_json(run.configuration)
    # The run's own weights replace any pretrained ones, which may not be at hand here.
    architecture = replace(wanted.model, weights=None)
    model = architecture.build(len(np.unique(benchmark.train.person_ids)), wanted.seed)
    weights = run.weights()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "a run's weights belong to its configuration",
            f"{run.folder / 'weights.pt'}: {str(error).partition(chr(10))[0]}",
            "copy the right file there, or remove the run's folder to train again",
        ) from error
    return model.eval()


def evaluate_run(run: Run, benchmark: Benchmark, *, execution: Execution | None = None) -> dict:
    """Scores of a trained run, by branch; also kept as ``scores.json`` and ``rankings.npz``.

    Both definitions of average precision are computed. ``rankings.npz`` holds ranked lists by the
    full feature (see ``LISTED_QUERIES``), so that drawing them needs no weights.
    Raises InputError if the run was trained on other data.
    """
    execution = execution or Execution()
    wanted = RunConfiguration.from_json(run.configuration)
    check_data_of(wanted, benchmark)
    model = trained_model(run, benchmark)
    device = execution.torch_device
    model.to(device, memory_format=torch.channels_last)
    whole_query, whole_gallery = (
        embed_split(model, split, open_images(split, wanted.input_size, execution))
        for split in (benchmark.query, benchmark.gallery)
    )
    branches = {}
    for name, columns in model.branches.items():
        query, gallery = (
            Embeddings(side.features[:, columns].to(device), side.person_ids, side.camera_ids)
            for side in (whole_query, whole_gallery)
        )
        branches[name] = {
            kind: evaluate(query, gallery, average_precision=kind, ranks=CMC_RANKS).to_dict()
            for kind in ("step", "trapezoid")
        }
    listed = _listed_queries(branches["full"]["step"]["average_precision"])
    lists = ranked_list(listed, whole_query, whole_gallery, top=LISTED_IMAGES)
    write_whole(run.folder / "rankings.npz", lambda partial: _save_lists(partial, listed, lists))
    scores = {"benchmark": benchmark.name, "data": benchmark.fingerprint, "branches": branches}
    write_json(run.folder / "scores.json", scores)
    return scores


def ranked_lists_of(run: Run) -> dict[str, np.ndarray]:
    """The kept ranked lists, worst average precision first: query_indices (L,) and, of each query's list,
    gallery_indices, distances and statuses (L, places); see ``ranking.RankedLists``.
    """
    with np.load(run.folder / "rankings.npz") as file:
        return dict(file)


def _listed_queries(average_precision: list[float | None]) -> np.ndarray:
    """Worst, middle and best queries of those that have a match, in ascending order of precision."""
    precision_q = np.array([np.nan if value is None else value for value in average_precision])
    order = np.argsort(precision_q, kind="stable")[: np.count_nonzero(~np.isnan(precision_q))]
    if len(order) <= 3 * LISTED_QUERIES:
        return order
    middle = (len(order) - LISTED_QUERIES) // 2
    return np.concatenate(
        [order[:LISTED_QUERIES], order[middle : middle + LISTED_QUERIES], order[-LISTED_QUERIES:]]
    )


def _save_lists(path: Path, query_indices: np.ndarray, lists: RankedLists) -> None:
    with path.open("wb") as file:  # a name would be given the ending .npz
        np.savez_compressed(file, query_indices=query_indices, **lists._asdict())


def check_data_of(wanted: RunConfiguration, benchmark: Benchmark) -> None:
    """Raises InputError where a configuration was made for other data than the benchmark's."""
    if wanted.data != benchmark.fingerprint:
        raise InputError(
            "a run belongs to the data that its configuration names",
            f"data {wanted.data} of {wanted.benchmark!r}, and here {benchmark.fingerprint}",
            "give the folder that it was trained on, or train again",
        )
