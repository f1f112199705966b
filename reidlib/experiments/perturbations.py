"""Scores of trained runs on the embedded benchmark's test images with one perturbed factor.

Training images are not perturbed. Perturbed test images keep their persons, poses and cameras, so scores can
be compared query by query. All scores, the unperturbed ones too, are measured on a part of the benchmark: the
query images of the first ``PERSONS`` test persons, one from each camera that sees them. Each is a query, and
the others are its gallery; there is neither junk nor a distractor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import torch
from PIL import Image

from reidlib.data.benchmark import Benchmark
from reidlib.data.decoding import resized
from reidlib.data.images import ImageStore, decode_complete_blocks
from reidlib.data.readers.market import RENDERING_FILE
from reidlib.data.synthetic.factors import QUERY, BenchmarkOrders, Factors, plan
from reidlib.data.synthetic.render import SHAPE, SIZES, fingerprint, render_in_memory
from reidlib.data.synthetic.scenes import compose
from reidlib.errors import InputError
from reidlib.experiments.evaluate import TABLE_RANKS, score_record, select_branch
from reidlib.experiments.features import WEIGHTS_MEND, TrainedNetwork, embed
from reidlib.experiments.obtain import FAILURES
from reidlib.experiments.rows import Perturbation
from reidlib.files import write_json
from reidlib.ranking.metrics import Embeddings
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# Without the levels of a Pyramid.
BRANCHES = ("full", "global", "local")
# Persons of the part by the benchmark's size; all test persons of other sizes. Estimated from 130 persons,
# a claim's intervals on 1,020 images of 170 are up to a tenth wider than on all 2,140 test images of 130.
PERSONS = {"quick": 170}
_FORMAT = 2


def part(size: str) -> BenchmarkOrders:
    """Return the images on which perturbations are measured."""
    images = plan(SIZES[size], Factors().num_cameras, 0)
    images = images[images.split == QUERY]
    return images[np.isin(images.identity, np.unique(images.identity)[: PERSONS.get(size)])]


def describe_part(size: str) -> str:
    """Say in a sentence on which images of a size perturbations are measured."""
    images = part(size)
    return (
        f"{len(images):,} images of the first {len(np.unique(images.identity)):,} of "
        f"{SIZES[size].test_identities:,} test persons, one from each camera that sees them; each is a "
        "query, and the others are its gallery, without junk and distractors"
    )


def perturbed_images(
    perturbation: Perturbation, size: str, *, device: str | torch.device = "cpu", progress: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Render the images of the part that a perturbation changes.

    Args:
        perturbation: Factor and value.
        size: Size of the benchmark, a key of ``render.SIZES``.
        device: Device of the renderer.
        progress: Whether to show a progress bar.

    Returns:
        Which images of ``part`` differ from the unperturbed ones, (N,) bool, and these images, uint8
        (M, 128, 64, 3).
    """
    images = part(size)
    usual, changed = (compose(images, factors, 0).truth for factors in (Factors(), perturbation.factors))
    changed_n = np.any([usual[name] != values for name, values in changed.items()], axis=0)
    title = f"rendering {perturbation.name}" if progress else ""
    return changed_n, render_in_memory(images[changed_n], perturbation.factors, device=device, title=title)


def stored_scores(run: Run, perturbation: Perturbation) -> dict | None:
    """Return a run's stored scores under a perturbation, or None without valid ones."""
    # Needs neither weights nor images. Scores are invalid if the images would be rendered differently today,
    # if they belong to another part or training, or if the file is damaged.
    if run.configuration["benchmark"] != "synthetic":
        return None
    scores = run.find(f"conditions/{_file_name(perturbation)}.json") or {}
    if scores.get("size") not in SIZES:
        return None
    return scores if scores | _header(run, perturbation, scores["size"]) == scores else None


def _header(run: Run, perturbation: Perturbation, size: str) -> dict:
    """Return the entries that identify a run's scores under a perturbation."""
    return {
        "format": _FORMAT,
        "condition": None if perturbation.is_default else asdict(perturbation),
        "size": size,
        "persons": PERSONS.get(size),
        "run_data": run.configuration["data"],
        "data": fingerprint(size, perturbation.factors),
    }


def evaluate_perturbations(
    requests: Mapping[Run, Sequence[Perturbation]],
    benchmark: Benchmark,
    *,
    execution: Execution | None = None,
) -> dict[Run, BaseException]:
    """Evaluate runs under perturbations, where ``stored_scores`` returns none; each is rendered once for all.

    A perturbation's scores are ``{"condition": {"factor", "value"} or None for the default value, "persons",
    "query_person_ids", "branches": {name: {"step": …, "trapezoid": …}}, …}``: those of ``BRANCHES`` that the
    network has, as in ``scores.json`` but with the ``cmc`` at ``TABLE_RANKS``. They are written to
    ``conditions/FACTOR-VALUE.json`` or ``usual.json`` in the run's folder, each when it is finished. Images
    are in memory only.

    Args:
        requests: Perturbations of each run.
        benchmark: The embedded benchmark, on which the runs were trained.
        execution: Device and progress.

    Returns:
        The error of each run that could not be evaluated under all its perturbations.

    Raises:
        InputError: If the benchmark is another one, or has other factors or another seed than the default.
    """
    execution = execution or Execution()
    missing = {run: [p for p in requests[run] if stored_scores(run, p) is None] for run in requests}
    missing = {run: perturbations for run, perturbations in missing.items() if perturbations}
    if not missing:
        return {}
    errors: dict[Run, BaseException] = {}
    networks: dict[Run, TrainedNetwork] = {}
    for run in missing:
        try:
            networks[run] = TrainedNetwork.for_benchmark(benchmark, run, execution)
            _fold_batch_norms(networks[run].model)  # raises InputError before rendering without weights
        except FAILURES as error:
            errors[run] = error
    if not networks:
        return errors
    size = rendered_size(benchmark)
    images = part(size)
    paths = [benchmark.root / QUERY / name for name in images.name.tolist()]
    blocks = decode_complete_blocks(paths, SHAPE, title="decoding", resize="bilinear", progress=False)
    usual_nhwc = np.concatenate([np.stack(block) for block in blocks])
    usual_features: dict[Run, torch.Tensor] = {}
    usual_inputs: dict[tuple, ImageStore] = {}
    # The default values of all factors are the same images.
    unique = {_file_name(p): p for run in networks for p in missing[run]}
    for name, perturbation in unique.items():
        changed_n, changed_nhwc = perturbed_images(
            perturbation, size, device=execution.rendering_device, progress=execution.progress
        )
        inputs: dict[tuple, ImageStore] = {}
        for run, network in networks.items():
            if run in errors or name not in map(_file_name, missing[run]):
                continue
            try:
                if changed_n.all():
                    features_nd = _embed(network, changed_nhwc, inputs)
                else:
                    if run not in usual_features:
                        usual_features[run] = _embed(network, usual_nhwc, usual_inputs)
                    features_nd = usual_features[run].clone()
                    if changed_n.any():
                        features_nd[torch.from_numpy(changed_n)] = _embed(network, changed_nhwc, inputs)
                scores = _header(run, perturbation, size) | {
                    "query_person_ids": images.person.tolist(),
                    "branches": _score_branches(network, features_nd, images),
                }
                write_json(run.folder / "conditions" / f"{name}.json", scores)
            except FAILURES as error:
                errors[run] = error
    return errors


def _fold_batch_norms(model: torch.nn.Module) -> None:
    """Make each batch norm a part of the convolution before it, in place: the same up to rounding."""
    for parent in list(model.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(layer, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                setattr(parent, name, torch.nn.utils.fuse_conv_bn_eval(layer, norm))
                setattr(parent, norm_name, torch.nn.Identity())


def _embed(network: TrainedNetwork, images_nhwc: np.ndarray, inputs: dict[tuple, ImageStore]) -> torch.Tensor:
    """Embed images; ``inputs`` holds them at the sizes that other networks have needed."""
    key = size, resize = network.input_size, network.configuration.resize
    if key not in inputs:
        resized_nhwc = [np.array(resized(Image.fromarray(image), size, resize)) for image in images_nhwc]
        inputs[key] = ImageStore(np.stack(resized_nhwc), network.execution.torch_device)
    # In the precision of a training: all scores under perturbations are differences on the same machine.
    return embed(network.model, inputs[key], autocast=network.execution.autocast())


def _score_branches(
    network: TrainedNetwork, features_nd: torch.Tensor, images: BenchmarkOrders
) -> dict[str, dict]:
    # As a query, an image ignores those of its person and camera, so itself.
    embeddings = Embeddings(
        features_nd, images.person, images.camera, name=images.name.__getitem__, mend=WEIGHTS_MEND
    )
    scores, device = {}, network.execution.torch_device
    for name in BRANCHES:
        if name in network.model.branches:
            branch = select_branch(embeddings, network.model.branches[name], device)
            scores[name] = score_record(branch, branch, TABLE_RANKS)
    return scores


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


def _file_name(perturbation: Perturbation) -> str:
    return "usual" if perturbation.is_default else f"{perturbation.factor}-{perturbation.value:g}"
