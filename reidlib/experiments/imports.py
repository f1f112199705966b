"""Checkpoints of Pyramid that other code wrote, as runs.

Two public code bases have Pyramid: that of its authors and YouReID. They name the layers of the parts alike
and the trunk differently. The names were read in TencentYoutuResearch/PersonReID-Pyramid, commits 63ffd64
and 8b82ca8, and TencentYoutuResearch/PersonReID-YouReID, commit 4c6a75d.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.errors import InputError, count_noun, one_line, shorten
from reidlib.training.checkpoint import load_tensors, save_tensors
from reidlib.training.config import PyramidConfiguration, RunConfiguration
from reidlib.training.runs import Run, find, find_or_train


class CodeBase(NamedTuple):
    """A code base that has Pyramid, and how its evaluation scales features and resizes images."""

    name: str
    normalisation: Literal["none", "part"]
    resize: Literal["bilinear", "bicubic"]


_CODE_BASES = {  # by the name of the trunk
    "base": CodeBase("PersonReID-Pyramid", "none", "bicubic"),
    "resnet": CodeBase("YouReID", "part", "bilinear"),
}
_INPUT_SIZE, _NUM_PARTS = (384, 128), 21  # of both
_PARTS, _CLASSIFIERS = "pyramid_conv_list0.", "pyramid_fc_list0."
# Where a part's layers are, by the name of the layer of all parts in ``models.Pyramid``.
_PART_LAYERS = {"embedding": _PARTS + "{}.0.", "norm": _PARTS + "{}.1.", "classifiers": _CLASSIFIERS + "{}."}
# What a checkpoint may have more than the network, by a pattern of the keys.
_UNUSED = {
    r"pyramid_(conv|fc)_list1\.": "of the second set of branches, which no forward pass uses",
    r".*\bnum_batches_tracked$": "that count batches",
    r"(base|resnet)\.fc\.": "of the trunk's own classifier",
}
_MEND = "give a file that the training of PersonReID-Pyramid or YouReID saved"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of another code base in the terms of this suite.

    Attributes:
        file, digest: The file and its SHA-256.
        code: The code base that wrote it, by the name of its trunk.
        model: The network.
        weights: The network's ``state_dict``.
        remarks: What of the file is not used, or is converted; a line for each kind.
    """

    file: Path
    digest: str
    code: CodeBase
    model: PyramidConfiguration
    weights: Mapping[str, Tensor]
    remarks: tuple[str, ...]

    def describe(self) -> str:
        """Return the network, how its images are compared, and the remarks, in lines."""
        model, identities = self.model, self.weights["classifiers.bias"].shape[1]
        scaling = "each part's scaled to unit length" if model.normalisation == "part" else "not scaled"
        lines = (
            f"{self.file.name}: Pyramid of {self.code.name}'s code, {model.trunk}, {_NUM_PARTS} parts of "
            f"{model.embedding_size} numbers, {count_noun(identities, 'identities')}",
            f"images resized by {self.code.resize} interpolation, features {scaling}",
            *self.remarks,
        )
        return "\n".join(map(one_line, lines))  # names in a file may contain anything


def read_pyramid(file: str | Path) -> Checkpoint:
    """Read a Pyramid checkpoint that the authors' code or YouReID wrote.

    Args:
        file: The file: a ``state_dict``, alone or in a dictionary. It is not changed.

    Returns:
        The checkpoint.

    Raises:
        InputError: If the file is not such a checkpoint; the message names what is missing or different.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise InputError("a checkpoint is a file", file, "check the path")
    mend = "copy it again if it is damaged; otherwise save model.state_dict() alone in the code that wrote it"
    state, remarks = _network_state(load_tensors(file, mend), file)
    trunk = next((name for name in _CODE_BASES if any(key.startswith(f"{name}.") for key in state)), "base")
    code = _CODE_BASES[trunk]
    is_deep = any(key.startswith(f"{trunk}.layer3.6.") for key in state)
    model = PyramidConfiguration(
        trunk="resnet101" if is_deep else "resnet50",
        embedding_size=_outputs(state, r"pyramid_conv_list0\.\d+\.0\.weight", 128),
        normalisation=code.normalisation,
        normalise_triplet=code.normalisation == "part",
    )
    with torch.device("meta"):  # names and shapes are enough
        network = model.build(_outputs(state, r"pyramid_fc_list0\.\d+\.weight", 751), 0)
    weights: dict[str, Tensor] = {}
    faults: list[str] = []
    types: set[str] = set()
    for name, layer in network.state_dict().items():
        if name.endswith("num_batches_tracked"):  # has no effect; torch before 0.4.1 did not save it
            weights[name] = torch.zeros(layer.shape, dtype=layer.dtype)
            continue
        keys, shape = _keys(name, layer.shape, trunk)
        tensors = {key: state.pop(key, None) for key in keys}
        faults += [f"{key}: {fault}" for key, tensor in tensors.items() if (fault := _fault(tensor, shape))]
        if not faults:
            types |= {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
            weights[name] = torch.stack([tensor.float() for tensor in tensors.values()]).reshape(layer.shape)
    for pattern, kind in _UNUSED.items():
        if keys := [key for key in state if re.match(pattern, key)]:
            remarks.append(f"not used: {count_noun(len(keys), 'tensors')} {kind}")
            state = {key: tensor for key, tensor in state.items() if key not in keys}
    # A further layer in trunk or parts, such as instance norm, would change the features.
    known = (f"{trunk}.", _PARTS, _CLASSIFIERS)
    faults += [f"{key}: not in this network" for key in state if key.startswith(known)]
    if faults:
        layers = f"ResNet-50 or ResNet-101, {_NUM_PARTS} parts"
        rule = f"a checkpoint of Pyramid has {code.name}'s layers: {layers}"
        raise InputError(rule, f"{file} with {shorten(faults)}", _MEND)
    if state:
        remarks.append(f"not used, unknown to {code.name}, and perhaps needed: {shorten(state, 10)}")
    if types != {"float32"}:
        remarks.append(f"converted to float32: {' and '.join(sorted(types))}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Checkpoint(file, digest, code, model, weights, tuple(remarks))


def import_run(checkpoint: Checkpoint, benchmark: Benchmark, folder: Path) -> tuple[Run, bool]:
    """Return the run of a checkpoint on a benchmark, and whether it was in the folder of runs before."""
    configuration = RunConfiguration(
        model=checkpoint.model,
        recipe=None,  # a checkpoint does not tell how it was trained
        input_size=_INPUT_SIZE,
        benchmark=benchmark.specification,
        data=benchmark.fingerprint,
        resize=checkpoint.code.resize,
        imported=checkpoint.digest,
    )
    content = configuration.to_json()

    def write(run_folder: Path) -> dict:
        save_tensors(run_folder / "weights.pt", dict(checkpoint.weights))
        origin = {"imported": checkpoint.file.name, "code": checkpoint.code.name}
        return {**origin, "data_root": str(benchmark.root.absolute())}

    exists = find(content, folder) is not None
    name = f"pyramid-imported-{files.safe_name(benchmark.specification)}"
    return find_or_train(content, write, name=name, folder=folder), exists


def _network_state(content: dict, file: Path) -> tuple[dict, list[str]]:
    """Find the one ``state_dict`` of Pyramid in a file; its keys lose a prefix such as ``module.``."""
    # The file's own, an entry, or in PersonReID-Pyramid an element of a list.
    entries: dict[str, Any] = {"": content}
    for name, value in content.items():
        values = enumerate(value) if isinstance(value, list | tuple) else ()
        entries |= {name: value, **{f"{name}[{index}]": element for index, element in values}}
    places = {
        (entry, key.partition(_PARTS)[0])
        for entry, state in entries.items()
        if isinstance(state, dict)
        for key in state
        if isinstance(key, str) and _PARTS in key
    }
    if len(places) != 1:
        names = (f"{entry}.{prefix}".strip(".") or "names without prefix" for entry, prefix in places)
        value = shorten(sorted(names) or content)
        rule = f"a checkpoint has one network with the layers {_PARTS}0 to 20 of Pyramid"
        raise InputError(rule, f"{file} with {value or 'nothing'}", _MEND)
    ((entry, prefix),) = places
    state = entries[entry]
    beside = [name for name in entries if entry and name not in ("", entry, entry.partition("[")[0])]
    beside += [str(key) for key in state if not str(key).startswith(prefix)]
    remarks = [f"not used: {shorten(beside, 10)}"] if beside else []
    return {key.removeprefix(prefix): value for key, value in state.items() if key not in beside}, remarks


def _outputs(state: Mapping, pattern: str, default: int) -> int:
    """Return the number of outputs of the first layer of a pattern; the default if there is none."""
    layers = (tensor for key, tensor in state.items() if re.fullmatch(pattern, key))
    return next((len(tensor) for tensor in layers if torch.is_tensor(tensor) and tensor.dim()), default)


def _keys(name: str, shape: torch.Size, trunk: str) -> tuple[list[str], tuple[int, ...]]:
    """Return the keys of the tensors that make one tensor of ``models.Pyramid``, and their shape."""
    layer, _, rest = name.partition(".")
    if layer == "stem":
        return [f"{trunk}.{rest}"], tuple(shape)
    if layer == "stages":
        return [f"{trunk}.layer{int(rest[0]) + 1}{rest[1:]}"], tuple(shape)
    keys = [_PART_LAYERS[layer].format(part) + rest for part in range(_NUM_PARTS)]
    if layer == "norm":  # the parts one after another
        return keys, (shape[0] // _NUM_PARTS,)
    return keys, (*shape[1:], 1, 1) if name == "embedding.weight" else tuple(shape[1:])


def _fault(tensor: object, shape: tuple[int, ...]) -> str:
    """Return what is wrong with an entry of a checkpoint; empty if it can be used."""
    if tensor is None:
        return "missing"
    if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
        return f"{getattr(tensor, 'dtype', type(tensor).__name__)} instead of floating-point numbers"
    if tensor.layout != torch.strided or tensor.is_meta:
        return "sparse or without values"
    if tuple(tensor.shape) != shape:
        return f"{'×'.join(map(str, tensor.shape)) or 'one number'} instead of {'×'.join(map(str, shape))}"
    return "" if tensor.float().isfinite().all() else "NaN or infinity"
