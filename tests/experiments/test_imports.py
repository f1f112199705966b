"""Checkpoints of Pyramid's public code: the same features, and everything else is refused by its name."""

import argparse
import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_pyramid import empty_state, random_pyramid
from PIL import Image
from torch import nn
from torchvision import transforms

from reidlib.cli import main
from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments import imports
from reidlib.experiments.features import TrainedNetwork
from reidlib.training.device import Execution
from reidlib.training.runs import Run

QUIET = Execution(device="cpu", progress=False)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def import_words(file, market):
    return ["import", str(file), "--as", "pyramid", "--benchmark", "market1501", "--data-root", str(market)]


def imported(file, market, capsys):
    """Import a file by the command; return what it printed, and the run."""
    status = main(import_words(file, market))
    output = capsys.readouterr()
    assert status == 0, output.err
    return output.out, Run.open(re.search(r"^run: (\S+)", output.out, re.MULTILINE)[1])


def refusal(file, market, capsys):
    """Import a file that is refused; return the one line."""
    assert main(import_words(file, market)) == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err.startswith("reidlib: error: ")
    assert output.err.count("\n") == 1
    return output.err


def read(state, tmp_path) -> imports.Checkpoint:
    torch.save(state, tmp_path / "checkpoint.pth")
    return imports.read_pyramid(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("trunk", "layers", "classes"),
    [("base", "resnet50", 5), ("resnet", "resnet50", 3), ("base", "resnet101", 2)],
)
def test_features_are_those_of_the_code_that_wrote_the_checkpoint(
    trunk, layers, classes, market, tmp_path, capsys
):
    naive = random_pyramid(trunk=trunk, layers=layers, classes=classes)
    state = naive.state_dict()
    if trunk == "base":  # as the authors' train.py saves network and optimiser
        content = {"state_dicts": [state, {"state": {}, "param_groups": []}], "ep": 112, "scores": 0}
    else:  # as YouReID saves a network in DistributedDataParallel
        state = {f"module.{name}": tensor for name, tensor in state.items()}
        content = {"epoch": 120, "state_dict": state, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save(content, tmp_path / "checkpoint.pth")
    text, run = imported(tmp_path / "checkpoint.pth", market, capsys)
    network = TrainedNetwork(run, QUIET)
    # As that code reads images: 3 is bicubic; YouReID takes the default, bilinear.
    resize = transforms.Resize((384, 128), interpolation=3 if trunk == "base" else 2)
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    pipeline = transforms.Compose([resize, transforms.ToTensor(), normalise])
    split = load("market1501", market).query
    images = torch.stack([pipeline(Image.open(path).convert("RGB")) for path in split.paths])
    features = network.embed(split, keep="nothing").features
    with torch.inference_mode():
        expected, logits = naive.test_feature(images), torch.stack(naive(images)[1], 1)
        if trunk == "resnet":  # the length of the whole changes no order of Euclidean distances
            torch.testing.assert_close(features.norm(dim=1), torch.full((len(images),), 21**0.5))
            features = nn.functional.normalize(features)
        assert expected.std() > 1e-3
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network.model(images).logits, logits, rtol=1e-5, atol=1e-5)
    configuration = network.configuration
    assert (configuration.model.trunk, configuration.input_size) == (layers, (384, 128))
    assert configuration.resize == {"base": "bicubic", "resnet": "bilinear"}[trunk]
    assert logits.shape[2] == classes
    beside = "state_dicts[1], ep, scores" if trunk == "base" else "epoch, optimizer"
    counters = sum("num_batches" in name and "list1" not in name for name in state)
    dead = sum("list1" in name for name in state)
    assert dead == 21 * (2 + 5 + 2)  # convolution, batch norm, classifier
    assert f"not used: {beside}\n" in text
    assert f"not used: {dead} tensors of the second set of branches" in text
    assert f"not used: {counters} tensors that count batches" in text
    assert "unknown" not in text
    assert "converted" not in text


def test_an_imported_run_evaluates_and_says_that_it_has_no_history(market, tmp_path, capsys):
    file = tmp_path / "checkpoint.pth"
    torch.save(random_pyramid().state_dict(), file)
    _, run = imported(file, market, capsys)
    weights = run.folder / "weights.pt"
    before = weights.stat().st_mtime_ns
    assert main(["evaluate", str(run.folder), "--device", "cpu"]) == 0
    assert "level 6" in capsys.readouterr().out
    assert run.scores["branches"]["full"]["step"]["num_queries"] > 0
    # The same bytes under another name are the same run, and scores stay.
    copy = tmp_path / "copy.pth"
    copy.write_bytes(file.read_bytes())
    text, again = imported(copy, market, capsys)
    assert text.endswith("(imported before)\n")
    assert (again.folder, weights.stat().st_mtime_ns) == (run.folder, before)
    assert again.scores == run.scores
    for content in ("history", "steps"):
        with pytest.raises(InputError, match=r"this needs what a training wrote; got no .*`reidlib import`"):
            getattr(run, content)


def test_another_file_or_benchmark_is_another_run(market, tmp_path, capsys):
    folders = set()
    for classes in (2, 3):
        torch.save(empty_state(classes=classes), tmp_path / "checkpoint.pth")
        _, run = imported(tmp_path / "checkpoint.pth", market, capsys)
        folders.add(run.folder)
    next((market / "query").glob("0*.jpg")).unlink()
    _, run = imported(tmp_path / "checkpoint.pth", market, capsys)
    assert len({*folders, run.folder}) == 3
    assert json.loads((run.folder / "run.json").read_text())["imported"] == "checkpoint.pth"


WRAPPERS = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state, "epoch": 3},
    "list": lambda state: {"nets": [{"weight": torch.zeros(1)}, state], "ep": 1},
}


@pytest.mark.parametrize(
    ("wrapper", "prefix"), list(zip(WRAPPERS, ("", "module.", "module._orig_mod.", "module."), strict=True))
)
def test_wrappers_and_prefixes_make_no_difference(wrapper, prefix, tmp_path):
    state = {f"{prefix}{name}": tensor for name, tensor in empty_state().items()}
    checkpoint = read(WRAPPERS[wrapper](state), tmp_path)
    checkpoint.model.build(5, 0).load_state_dict(checkpoint.weights)
    assert not any("unknown" in remark for remark in checkpoint.remarks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_converted_and_named(dtype, tmp_path):
    value = torch.full((1,), 1 / 3, dtype=dtype)
    state = {
        name: value.expand(tensor.shape) if tensor.is_floating_point() else tensor
        for name, tensor in empty_state().items()
    }
    checkpoint = read(state, tmp_path)
    assert f"converted to float32: {str(dtype).removeprefix('torch.')}" in checkpoint.remarks
    kernel = checkpoint.weights["stem.conv1.weight"]
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel, value.float().expand(kernel.shape))


def test_a_checkpoint_of_old_torch_has_no_counters(tmp_path):
    state = {name: tensor for name, tensor in empty_state().items() if "num_batches" not in name}
    checkpoint = read(state, tmp_path)
    checkpoint.model.build(5, 0).load_state_dict(checkpoint.weights)
    assert not any("count batches" in remark for remark in checkpoint.remarks)


def test_what_neither_code_has_is_named(tmp_path):
    state = empty_state(trunk="resnet")
    state |= {"resnet.fc.weight": torch.zeros(2), "centres.points": torch.zeros(2)}
    remarks = read(state, tmp_path).remarks
    assert "not used: 1 tensor of the trunk's own classifier" in remarks
    assert "not used, unknown to YouReID, and perhaps needed: centres.points" in remarks


def test_a_name_in_a_file_makes_no_line_of_its_own(market, tmp_path, capsys):
    state = empty_state() | {"x\nrun: elsewhere\x1b[31m": torch.zeros(2)}
    torch.save(state, tmp_path / "a\nb.pth")
    text, _ = imported(tmp_path / "a\nb.pth", market, capsys)
    assert text.startswith("a\\nb.pth: Pyramid")
    assert "perhaps needed: x\\nrun: elsewhere\\x1b[31m\n" in text


def without(name):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def with_entry(name, value):
    return lambda state: {**state, name: value}


# A change of a valid state, and what the refusal names.
CHANGES = {
    "trunk": (without("base.layer3.2.bn2.weight"), "base.layer3.2.bn2.weight: missing"),
    "stem": (without("base.conv1.weight"), "base.conv1.weight: missing"),
    "part": (without("pyramid_conv_list0.20.1.running_var"), "pyramid_conv_list0.20.1.running_var: missing"),
    "classifier": (without("pyramid_fc_list0.0.weight"), "pyramid_fc_list0.0.weight: missing"),
    "width": (with_entry("base.bn1.bias", torch.zeros(65)), "base.bn1.bias: 65 instead of 64"),
    "number": (with_entry("base.bn1.bias", torch.tensor(1.0)), "base.bn1.bias: one number instead of 64"),
    "transposed": (
        with_entry("pyramid_conv_list0.3.0.weight", torch.zeros(2048, 8, 1, 1)),
        "pyramid_conv_list0.3.0.weight: 2048×8×1×1 instead of 8×2048×1×1",
    ),
    "classes": (
        with_entry("pyramid_fc_list0.7.bias", torch.zeros(6)),
        "pyramid_fc_list0.7.bias: 6 instead of 5",
    ),
    "quantised": (
        with_entry("base.bn1.bias", torch.zeros(64, dtype=torch.int8)),
        "base.bn1.bias: torch.int8 instead of floating-point numbers",
    ),
    "complex": (
        with_entry("base.bn1.bias", torch.zeros(64, dtype=torch.complex64)),
        "base.bn1.bias: torch.complex64 instead of floating-point numbers",
    ),
    "sparse": (with_entry("base.bn1.bias", torch.zeros(64).to_sparse()), "base.bn1.bias: sparse or"),
    "no values": (
        with_entry("base.bn1.bias", torch.zeros(64, device="meta")),
        "base.bn1.bias: sparse or without values",
    ),
    "text": (with_entry("base.bn1.bias", "none"), "base.bn1.bias: str instead of"),
    "infinite": (with_entry("base.bn1.bias", torch.full((64,), torch.inf)), "base.bn1.bias: NaN or infinity"),
    "further block": (
        with_entry("base.layer2.4.conv1.weight", torch.zeros(1)),
        "base.layer2.4.conv1.weight: not in this network",
    ),
    "instance norm": (
        with_entry("base.layer1.0.bn1.IN.weight", torch.zeros(32)),
        "base.layer1.0.bn1.IN.weight: not in this network",
    ),
    "further part": (
        with_entry("pyramid_conv_list0.21.0.weight", torch.zeros(1)),
        "pyramid_conv_list0.21.0.weight: not in this network",
    ),
    "one class": (lambda _: empty_state(classes=1), "a classifier needs at least two identities"),
    "deeper": (lambda _: empty_state(layers="resnet152"), "base.layer2.4.conv1.weight: not in this network"),
    "plain ResNet": (
        lambda state: {name[5:]: tensor for name, tensor in state.items() if name.startswith("base.")},
        "with conv1.weight, bn1.weight,",
    ),
    "two networks": (lambda state: {"model": state, "ema": state}, "with ema, model; give a file"),
    "two in one": (
        lambda state: {
            f"{who}.{key}": tensor for key, tensor in state.items() for who in ("student", "teacher")
        },
        "with student, teacher; give a file",
    ),
    "prefixes": (
        lambda state: (
            {f"module.{key}" if "list0" in key else key: state[key] for key in state}
            | {"pyramid_conv_list0.0.0.bias": torch.zeros(8)}
        ),
        "with module, names without prefix; give a file",
    ),
    "empty": (lambda _: {}, "with nothing"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_is_refused_by_the_name_of_what_differs(change, market, tmp_path, capsys):
    edit, expected = CHANGES[change]
    torch.save(edit(empty_state()), tmp_path / "checkpoint.pth")
    assert expected in refusal(tmp_path / "checkpoint.pth", market, capsys)
    assert not (tmp_path / "home" / "runs").exists()


def test_a_run_of_this_suite_is_no_foreign_checkpoint(market, tmp_path, capsys):
    weights = read(empty_state(), tmp_path).weights
    torch.save(weights, tmp_path / "weights.pt")
    assert "with stem.conv1.weight," in refusal(tmp_path / "weights.pt", market, capsys)


NAMES = sorted(name for name in empty_state() if "list1" not in name and "num_batches" not in name)


@settings(max_examples=6)
@given(missing=st.sets(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_every_missing_layer_is_named(missing, tmp_path_factory):
    # Without them, even the first layer, from which sizes are read, is noticed.
    folder = tmp_path_factory.mktemp("missing")
    state = {name: tensor for name, tensor in empty_state().items() if name not in missing}
    with pytest.raises(InputError) as error:
        read(state, folder)
    for name in missing:
        assert f"{name}: missing" in str(error.value)


def test_files_that_are_no_checkpoint_are_refused_in_one_line(market, tmp_path, capsys):
    file = tmp_path / "checkpoint.pth"
    assert "a checkpoint is a file" in refusal(file, market, capsys)
    assert "a checkpoint is a file" in refusal(tmp_path, market, capsys)
    for content in (b"", b"no checkpoint", b"PK\x03\x04"):
        file.write_bytes(content)
        assert "save model.state_dict() alone" in refusal(file, market, capsys)
    for kind in (True, False):  # of torch's two formats
        torch.save(empty_state(), file, _use_new_zipfile_serialization=kind)
        file.write_bytes(file.read_bytes()[:-2000])
        assert "copy it again if it is damaged" in refusal(file, market, capsys)
        # A whole module would run its code when it is read.
        torch.save(nn.Linear(2, 2), file, _use_new_zipfile_serialization=kind)
        message = refusal(file, market, capsys)
        assert (
            "an object of torch.nn.modules.linear.Linear, which only running its code would load" in message
        )
        assert "This file can still be loaded" not in message
    torch.save({"state_dict": empty_state(), "args": argparse.Namespace(lr=1)}, file)
    assert "argparse.Namespace" in refusal(file, market, capsys)
    for content in ([empty_state()], torch.zeros(2), {0: torch.zeros(2)}):
        torch.save(content, file)
        assert "a checkpoint is readable" in refusal(file, market, capsys)


def test_the_network_is_named_before_anything_is_read(market, tmp_path, capsys):
    words = import_words(tmp_path / "none.pth", market)
    for name, mend in (("pyramd", "did you mean pyramid?"), ("jlml", "name one of them")):
        words[words.index("--as") + 1] = name
        assert main(words) == 2
        assert f"imported as one of: pyramid; got '{name}'; {mend}" in capsys.readouterr().err
