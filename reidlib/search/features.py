"""Features of the user's own images, with their names, persons and cameras: compute, write and read.

File formats. npz: arrays ``features``, ``names``, ``persons``, ``cameras`` and ``information`` (a JSON text).
Parquet: columns ``name``, ``person``, ``camera`` and ``feature`` (a list of float32), and the JSON text under
``reidlib`` in the metadata. The folder of the images is stored relative to the file's folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidlib import files
from reidlib.data.augmentation import IMAGENET_MEAN, IMAGENET_STD
from reidlib.data.images import RESIZE_RULE
from reidlib.data.names import describe_spellings, known_names, read_name
from reidlib.data.readers.own import list_own_images
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.files import write_atomically
from reidlib.ranking.distances import spans
from reidlib.ranking.metrics import check_finite
from reidlib.training.device import Execution
from reidlib.training.runs import Run

_FORMAT = 1
# Number of rows that are written or read at once.
_ROWS = 4096
_MEND = "write it again with `reidlib embed`"


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of N images, with names, persons and cameras.

    Attributes:
        features: Features, float32 of shape (N, D); a memory map if they are on disk.
        names: Paths of the images relative to ``root``, with "/".
        persons: Names of the persons; "" if unknown. Junk and distractors count as unknown.
        cameras: Names of the cameras; "" if unknown.
        information: JSON types: ``network`` (``TrainedNetwork.key`` of the run), ``run`` (name of its
            folder), ``model``, ``input_size``, ``resize``, ``mean``, ``std``, ``distance`` and ``versions``.
        root: Folder of the images when they were embedded; None if unknown.
        warnings: Messages about images that were left out and names that mean unknown.

    Raises:
        InputError: If the lengths differ, there is no image, or the network is not named.
    """

    features: np.ndarray
    names: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]
    information: dict
    root: Path | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self):
        features = self.features
        if features.ndim != 2 or features.dtype != np.float32 or 0 in features.shape:
            raise InputError(
                "features are a non-empty (N, D) array of float32",
                f"{features.shape} {features.dtype}",
                _MEND,
            )
        lengths = (len(features), len(self.names), len(self.persons), len(self.cameras))
        if len(set(lengths)) > 1:
            numbers = "{} features, {} names, {} persons, {} cameras".format(*lengths)
            raise InputError("every image has a feature, a name, a person and a camera", numbers, _MEND)
        for column in (self.names, self.persons, self.cameras):
            if odd := [name for name in column if not isinstance(name, str)]:
                rule = "names of images, persons and cameras are texts, empty if unknown"
                raise InputError(rule, f"{odd[0]!r} of {len(odd)}", _MEND)
        if not isinstance(self.information.get("network"), str):
            raise InputError("features name the network that computed them", "no name", _MEND)

    def __len__(self) -> int:
        return len(self.names)


def embed_own_images(network: TrainedNetwork, source: str | Path) -> FeatureSet:
    """Embed the user's own images, and cache the features so that images are embedded once.

    Args:
        network: The trained network.
        source: One image, a folder, a folder per person, or a CSV (see ``list_own_images``).

    Returns:
        The features with names, persons and cameras. They are a memory map of a file in
        ``files.feature_cache()``.

    Raises:
        InputError: If the run has no weights (before any image is listed), ``list_own_images`` refuses the
            source, or an image cannot be decoded.
    """
    key = network.key
    own_images = list_own_images(source)
    # One file per source, so that a source with new images replaces its earlier features.
    name = hashlib.sha256(f"{key} {Path(source).expanduser().absolute()}".encode(errors="replace"))
    file = files.feature_cache() / f"{name.hexdigest()[:32]}.npy"
    embedded = network.embed(own_images.split, keep="features", file=file)
    assert isinstance(embedded.features, np.ndarray)  # a memory map of the file
    information = {
        "format": _FORMAT,
        "network": key,
        "run": network.run.folder.resolve().name,
        "model": network.run.configuration["model"]["kind"],
        "input_size": list(network.input_size),
        "resize": RESIZE_RULE.format(network.configuration.resize),
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "distance": "Euclidean",
        "versions": files.versions(),
    }
    return FeatureSet(
        embedded.features,
        own_images.names,
        own_images.persons,
        own_images.cameras,
        information,
        own_images.root,
        own_images.warnings,
    )


def warnings_of(*sets: FeatureSet) -> list[str]:
    """List the warnings of the sets, and the spellings of names within and between them."""
    warnings = [warning for feature_set in sets for warning in feature_set.warnings]
    for noun in ("person", "camera"):
        names = {name for feature_set in sets for name in getattr(feature_set, f"{noun}s")}
        warnings += describe_spellings(noun, names)
    return list(dict.fromkeys(warnings))


def write_features(
    run: str | Path, images: str | Path, out: str | Path, *, device: str = "auto", progress: bool = True
) -> FeatureSet:
    """Embed the user's own images with a trained run and write the features (``reidlib embed``).

    An interrupted call keeps the features computed so far; the same call then continues from there.

    Args:
        run: Folder of the trained run.
        images: One image, a folder, a folder per person, or a CSV (see ``list_own_images``).
        out: File to write, with the ending .npz or .parquet.
        device: "auto", or a device of this machine: "cpu", "cuda", "cuda:1" or "mps".
        progress: Whether a progress bar is shown.

    Returns:
        The features with names, persons and cameras.

    Raises:
        InputError: If ``out`` has another ending or exists (both before any work), ``list_own_images``
            refuses the images, or an image cannot be decoded.
    """
    out = Path(out).expanduser()
    _reader_and_writer(out)
    if out.exists():
        raise InputError(
            "features are written to a new file", f"{out}, which exists", "name another, or remove it"
        )
    embedded = embed_own_images(
        TrainedNetwork(Run.open(run), Execution(device=device, progress=progress)), images
    )
    save_features(embedded, out)
    return embedded


def save_features(features: FeatureSet, out: Path) -> None:
    """Write features to a .npz or .parquet file, completely or not at all.

    Args:
        features: The features.
        out: File to write, with the ending .npz or .parquet.

    Raises:
        InputError: If the file has another ending, or is .parquet and a name is not Unicode.
    """
    _, write = _reader_and_writer(out)
    information = dict(features.information)
    if features.root is not None:
        information["root"] = Path(os.path.relpath(features.root, out.parent)).as_posix()
    text = json.dumps(information)
    write_atomically(out, lambda partial: write(partial, features, text))


def read_features(file: str | Path) -> FeatureSet:
    """Read features from a file that ``save_features`` wrote.

    Args:
        file: The .npz or .parquet file.

    Returns:
        The features; those of a .npz file are a memory map.

    Raises:
        InputError: If the file does not exist, has another ending, is damaged, or is not a file of features.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise InputError(
            "features are read from a file that `reidlib embed` wrote", f"no file {file}", "check the path"
        )
    read, _ = _reader_and_writer(file)
    try:
        features_nd, names, persons, cameras, text = read(file)
        information = json.loads(text)
        root = information.pop("root", None)
        if information["format"] != _FORMAT:
            raise ValueError(f"format {information['format']} instead of {_FORMAT}")
        names = tuple(map(read_name, names))
        persons, unknown_persons = known_names("person", [*map(read_name, persons)])
        cameras, unknown_cameras = known_names("camera", [*map(read_name, cameras)])
        warnings = (*unknown_persons, *unknown_cameras)
        folder = None if root is None else Path(os.path.normpath(file.absolute().parent / root))
        check_finite(features_nd, lambda row: f"{names[row]} of {file}", _MEND)
        return FeatureSet(features_nd, names, persons, cameras, information, folder, warnings)
    except InputError:
        raise
    except Exception as error:  # readers raise many types of error for a damaged file
        raise InputError(
            "a file of features is a complete file from `reidlib embed`",
            f"{file}: {str(error).partition(chr(10))[0] or type(error).__name__}",
            _MEND,
        ) from error


def is_feature_file(source: str | Path) -> bool:
    """Return whether the name has the ending of a file of features."""
    return Path(source).suffix.lower() in _FORMATS


def _reader_and_writer(file: Path) -> tuple[Callable, Callable]:
    """Return the functions that read and write a file with this ending."""
    if not is_feature_file(file):
        raise InputError("features are stored as .npz or .parquet", file, "choose one of these endings")
    return _FORMATS[file.suffix.lower()]


def _write_npz(path: Path, features: FeatureSet, text: str) -> None:
    columns: dict[str, Any] = {
        name: np.array(getattr(features, name), str) for name in ("names", "persons", "cameras")
    }
    with path.open("wb") as stream:  # given a name, numpy would append .npz
        np.savez(stream, features=features.features, information=np.array(text), **columns)


def _read_npz(file: Path) -> tuple[np.ndarray, list, list, list, str]:
    with np.load(file) as content:
        try:
            names, persons, cameras = (content[name].tolist() for name in ("names", "persons", "cameras"))
        except ValueError as error:  # arrays of Python objects run code when they are read
            rule = "names, persons and cameras are arrays of texts or numbers"
            raise InputError(rule, f"{file}: {error}", "store them with .astype(str)") from None
        return _memory_map(file, "features.npy"), names, persons, cameras, str(content["information"])


def _memory_map(file: Path, member: str) -> np.ndarray:
    """Map an array of an uncompressed archive, as ``np.savez`` writes it, into memory."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(member)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed")
        with archive.open(entry) as stream:
            np.lib.format.read_magic(stream)
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
            if by_columns or dtype.hasobject:  # objects would be read as addresses in memory
                raise ValueError(f"{member} holds {'objects' if dtype.hasobject else 'columns and no rows'}")
            header = stream.tell()
    with file.open("rb") as stream:
        # The entry's local header repeats the name and may be longer than the archive's directory says.
        stream.seek(entry.header_offset + 26)
        lengths = struct.unpack("<HH", stream.read(4))
    start, size = entry.header_offset + 30 + sum(lengths) + header, math.prod(shape) * dtype.itemsize
    # The archive's directory and the array's header are independent of each other: either may be damaged.
    present = min(entry.file_size - header, file.stat().st_size - start)
    if present < size:
        rule, mend = f"{member} is as long as its header says, {size:,} bytes", f"copy it again, or {_MEND}"
        raise InputError(rule, f"{present:,} bytes of {shape} {dtype} in {file}", mend)
    return np.memmap(file, dtype, "r", start, shape)


def _write_parquet(path: Path, features: FeatureSet, information: str) -> None:
    import pyarrow as pa  # the import takes a third of a second, and few calls need it
    from pyarrow import parquet

    for text in (*features.names, *features.persons, *features.cameras):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            rule, mend = "names in a .parquet file are Unicode", "rename it, or write an .npz file"
            raise InputError(rule, text, mend) from error
    strings = [(name, pa.string()) for name in ("name", "person", "camera")]
    schema = pa.schema([*strings, ("feature", pa.list_(pa.float32()))], metadata={"reidlib": information})
    with path.open("wb") as stream, parquet.ParquetWriter(stream, schema) as writer:
        for span in spans(len(features), _ROWS):
            rows_nd = features.features[span]
            offsets = np.arange(len(rows_nd) + 1, dtype=np.int32) * rows_nd.shape[1]
            columns = [features.names[span], features.persons[span], features.cameras[span]]
            lists = pa.ListArray.from_arrays(offsets, pa.array(rows_nd.ravel()))
            writer.write_batch(
                pa.record_batch([*(pa.array(c, pa.string()) for c in columns), lists], schema=schema)
            )


def _read_parquet(file: Path) -> tuple[np.ndarray, list, list, list, str]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as content:
        text = (content.schema_arrow.metadata or {})[b"reidlib"].decode()
        count = content.metadata.num_rows
        features_nd, columns, num_read = None, ([], [], []), 0
        for batch in content.iter_batches(_ROWS, columns=["name", "person", "camera", "feature"]):
            flat = batch.column(3).flatten().to_numpy()
            rows_nd = flat.reshape(len(batch), -1)
            if features_nd is None:
                features_nd = np.empty((count, rows_nd.shape[1]), np.float32)
            features_nd[num_read : num_read + len(rows_nd)] = rows_nd
            num_read += len(rows_nd)
            for column, name in zip(columns, ("name", "person", "camera"), strict=True):
                column += batch.column(name).to_pylist()
    if features_nd is None:
        raise ValueError("no image")
    return features_nd, *columns, text


_FORMATS = {".npz": (_read_npz, _write_npz), ".parquet": (_read_parquet, _write_parquet)}
