"""A trained run on a gallery with half a million further images, streamed from disk."""

from __future__ import annotations

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.splits import concatenated
from reidlib.errors import InputError
from reidlib.experiments.embedding import embed_split
from reidlib.experiments.evaluate import TABLE_RANKS, check_data_of, open_images, trained_model
from reidlib.experiments.feature_files import embed_to_disk, features_key
from reidlib.files import write_json
from reidlib.ranking.metrics import Embeddings, evaluate_each
from reidlib.training.config import RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import Run


def evaluate_with_distractors(
    run: Run, benchmark: Benchmark, *, execution: Execution | None = None
) -> dict[str, dict]:
    """Scores of the full feature with ``distractors`` in the gallery, kept as ``distractors.json``.

    "step" and "trapezoid", each as in ``scores.json`` with the ``cmc`` at ``TABLE_RANKS``, and the numbers of
    images. Gallery and distractors pass through memory a few hundred images at a time; their features lie in
    one file under ``files.feature_cache()`` (4·D bytes an image, 2 GB for half a million of JLML's), from
    which they are ranked block by block. An interrupted call goes on from there; the file may be removed
    afterwards. Raises InputError for a benchmark read without distractors and a run of other data.
    """
    if benchmark.distractors is None:
        raise InputError(
            "scores with distractors need the benchmark's distractors",
            f"{benchmark.specification} without",
            "read it with distractors=True",
        )
    execution = execution or Execution()
    wanted = RunConfiguration.from_json(run.configuration)
    check_data_of(wanted, benchmark)
    model = trained_model(run, execution.torch_device)
    query = embed_split(model, benchmark.query, open_images(benchmark.query, wanted.input_size, execution))
    together = concatenated((benchmark.gallery, benchmark.distractors))
    file = files.feature_cache() / f"{run.folder.name}-distractors.npy"
    features_gd = embed_to_disk(model, together, wanted.input_size, execution, file, key=features_key(run))
    gallery = Embeddings(features_gd, together.person_ids, together.camera_ids)
    scores = {"num_gallery": len(benchmark.gallery), "num_distractors": len(benchmark.distractors)}
    found = evaluate_each(query, gallery, ranks=TABLE_RANKS, device=execution.torch_device)
    scores |= {kind: one.to_dict() for kind, one in found.items()}
    write_json(run.folder / "distractors.json", scores)
    return scores
