"""What the norms switch off, on layers written by hand."""

import json

import numpy as np
import pytest
import torch

from reidlib.analysis.feature_selection import described, has_weights, input_norms, reading
from reidlib.errors import InputError
from reidlib.experiments.setup import Missing
from reidlib.training.runs import Run


def written(folder, weight_dc, weight_pdc):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({}))
    torch.save(
        {"global_feature.weight": weight_dc, "local_feature.weight": weight_pdc}, folder / "weights.pt"
    )
    return Run(folder)


@pytest.fixture
def norms(tmp_path):
    # Input units 0 to 2 of the global layer: norms 5, 0.04 (off) and 1.
    weight_dc = torch.tensor([[3.0, 0.04, 1.0], [4.0, 0.0, 0.0]])
    # Two stripes with one output unit each; unit 1 of the second is off, and with it one of six weights.
    weight_pdc = torch.tensor([[[1.0, -2.0, 0.5]], [[1.0, 0.005, -1.0]]])
    return input_norms(written(tmp_path / "run", weight_dc, weight_pdc))


def test_norms_run_over_what_leaves_an_input_unit(norms):
    assert norms.global_c == pytest.approx([5, 0.04, 1])
    assert norms.local_pc == pytest.approx(np.array([[1, 2, 0.5], [1, 0.005, 1]]))
    assert norms.local_weights_off == pytest.approx(1 / 6)


def test_cells_of_the_table(norms):
    cells = described(norms)
    assert cells["global units off"] == "33.3 % of 3"
    assert cells["local units off"] == "16.7 % of 6"
    assert cells["local weights off"] == "16.7 %"
    assert cells["mean norm, global"] == "2.01"


def test_the_reading_names_rows_and_sizes(norms):
    half = norms._replace(global_c=np.array([1.0, 1.0, 1.0]))
    text = reading({"strong": norms, "none": half})
    assert "global layer: switched off in *strong* 33 %, in no other row" in text
    assert "switched off in no row" in reading({"none": half}).partition("\n")[0]
    assert reading({}) == "No run with its weights is here."


def test_without_weights_there_is_nothing_to_measure(tmp_path):
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    assert not has_weights(run)
    assert not has_weights(Missing("failed"))
    with pytest.raises(InputError, match="needs the run's weights"):
        input_norms(run)
