"""What notebook 60 measures: roofs, steps, growth; and the tables that it shows."""

import csv
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reidlib.analysis import complexity
from reidlib.analysis.benchmark_tables import lines_of
from reidlib.analysis.complexity import performance
from reidlib.data.images import ImageStore
from reidlib.experiments.rows import get_profile
from reidlib.ranking.metrics import evaluate
from reidlib.training.device import Execution
from reidlib.training.loop import train

CPU = Execution(device="cpu", progress=False)


def test_traffic_is_what_operations_read_and_write():
    layer = nn.Linear(3, 5, bias=False)
    inputs = torch.ones(2, 3)
    with performance._Traffic() as traffic, torch.no_grad():
        layer(inputs.view(2, 3)).t()
    # The product reads both factors and writes the result; views, here three, move nothing.
    assert traffic.bytes == 4 * (2 * 3 + 3 * 5 + 2 * 5)


def test_traffic_counts_a_change_in_place_as_read_and_written():
    tensors = [torch.ones(4), torch.ones(6)]
    with performance._Traffic() as traffic:
        torch._foreach_add_(tensors, 1.0)
    assert traffic.bytes in (40, 80)  # the list is an input, and in newer versions the output, too


@pytest.mark.parametrize("row", ["jlml", "pyramid"])
def test_a_step_is_measured(row):
    configuration = performance.configuration(row, get_profile("smoke"))
    step = performance.measure_step(configuration, CPU, num_classes=12, repetitions=1)
    model = configuration.model.build(12, 0)
    assert step.images == configuration.recipe.batch_size
    assert step.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert step.seconds > 0 and step.embedding_seconds > 0
    weights = 4 * step.parameters
    assert step.memory > weights  # at least the gradients
    assert step.bytes > 3 * weights  # SGD alone reads weights and gradients, and writes weights
    # Backward has about twice the operations of forward, which are those of the images and a little more.
    forward = 2 * step.images * complexity.complexity(model, configuration.input_size).multiply_adds
    assert 2.5 < step.operations / forward < 3.5


def test_the_steps_optimiser_is_a_trainings(monkeypatch, tmp_path):
    """A loop over lists of weights reads and writes more than one fused operation."""
    implementations = []

    class Recorded(torch.optim.SGD):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            implementations.append({name: options.get(name) for name in ("fused", "foreach", "nesterov")})

    monkeypatch.setattr(torch.optim, "SGD", Recorded)
    configuration = performance.configuration("jlml", get_profile("smoke"))
    performance.measure_step(configuration, CPU, num_classes=4, repetitions=1)
    recipe, settings = replace(configuration.recipe, epochs=1, steps=None), configuration.model
    pixels = np.zeros((recipe.batch_size, *configuration.input_size, 3), np.uint8)
    labels = torch.arange(recipe.batch_size) % 4
    store = ImageStore(pixels, torch.device("cpu"))
    train(
        settings.build(4, 0),
        settings.objective,
        store,
        labels,
        recipe,
        folder=tmp_path,
        seed=0,
        execution=CPU,
    )
    measured, trained = implementations
    assert measured == trained


def test_rows_that_differ_in_losses_share_a_network():
    names = performance.distinct_networks(get_profile("quick"))
    assert {"jlml", "jlml-8", "pyramid", "pyramid-stripes"} < set(names)
    assert not {"jlml-sfl-off", "pyramid-off", "pyramid-identity"} & set(names)


def test_both_roofs_are_measured():
    operations, bandwidth = performance.measure_roof(CPU, repetitions=1, scale=0.05)
    assert operations > 0 and bandwidth > 0


def test_growth_gives_each_action_the_beginning_of_the_gallery():
    queries, galleries = performance.random_embeddings(300, 16), []
    actions = {"keep": galleries.append, "evaluate": lambda gallery: evaluate(queries, gallery)}
    seconds = performance.measure_growth(actions, (50, 120), length=16, repetitions=2)
    assert list(seconds.index) == [50, 120] and list(seconds) == ["keep", "evaluate"]
    assert [len(gallery) for gallery in galleries] == [50] * 3 + [120] * 3
    np.testing.assert_array_equal(galleries[0].features, galleries[-1].features[:50])


@pytest.fixture(scope="module")
def peers():
    """The script that measures other projects."""
    path = Path(__file__).parents[1] / "benchmarks" / "peers.py"
    specification = importlib.util.spec_from_file_location("peers", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_committed_table_is_what_the_script_writes(peers):
    table = lines_of("complexity/peers")
    measured = list(zip(table["project"], table["what"], strict=True))
    programs = [(peer.name, what) for peer in peers.PEERS for what in peer.programs]
    assert measured == [program for program in programs if program in measured]
    assert {project for project, _ in measured} == {peer.name for peer in peers.PEERS}
    for line in table.to_dict("records"):
        if not line.get("fails"):
            assert float(line["times the seconds"]) > 0 and float(line["times the MiB"]) > 0
            if line["what"].startswith("evaluation"):
                assert float(line["mAP"]) == pytest.approx(float(line["reidlib's mAP"]), abs=0.01)
            ratio = float(line["seconds"]) / float(line["reidlib's seconds"])
            assert float(line["times the seconds"]) == pytest.approx(ratio, rel=0.3)  # a median of ratios


def test_a_program_is_compared_with_this_suites(peers, tmp_path):
    naive = "result = ((query[:, None] - gallery) ** 2).sum(2)"
    peer = peers.Peer("naive", "", {"re-ranking": naive, "evaluation": "raise SystemExit('no such module')"})
    for task in ("re-ranking", "evaluation"):
        peers.write_features(tmp_path / task, 30, 200)
    python = Path(peers.sys.executable)
    row = peers.compare(peer, "re-ranking", python, tmp_path, tmp_path, 1)
    assert 0 < row["mAP"] <= 100 and 0 < row["reidlib's mAP"] <= 100
    with pytest.raises(RuntimeError, match="no such module"):
        peers.compare(peer, "evaluation", python, tmp_path, tmp_path, 1)


@pytest.mark.parametrize("name", ["goals", "tried", "peers"])
def test_every_line_of_a_table_has_its_columns(name):
    """A comma outside quotes would shift what follows, or fail only in the notebook."""
    path = Path(performance.__file__).with_name(f"{name}.csv")
    header, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert lines and {len(line) for line in lines} == {len(header)}
