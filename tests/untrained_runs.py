"""Runs with random weights, for tests of functions that use a finished run."""

from reidlib.data.splits import training_labels
from reidlib.training.checkpoint import save_tensors
from reidlib.training.config import JLMLConfiguration, PyramidConfiguration, Recipe, RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import find_or_train

QUIET = Execution(device="cpu", progress=False)
JLML = JLMLConfiguration(width=0.125, feature_size=16, parts=2)
# Without normalisation: its embeddings have any length.
PYRAMID = PyramidConfiguration(
    trunk="resnet39", weights=None, width=0.125, stripes=2, embedding_size=8, normalisation="none"
)


def untrained_run(benchmark, folder, model=JLML, size=(32, 16), **fields):
    """Write the run of a network with its initial weights."""
    identities = len(training_labels(benchmark.train.person_ids)[1])
    configuration = RunConfiguration(
        model, Recipe(steps=1, images_per_identity=2), size, benchmark.name, benchmark.fingerprint, **fields
    )

    def train(run_folder):
        save_tensors(run_folder / "weights.pt", model.build(identities, 0).state_dict())
        return {}

    return find_or_train(configuration.to_json(), train, name="untrained", folder=folder)
