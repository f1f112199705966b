"""Features of own images with what is known of them: computed by a run, written to a file, read again."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidlib import files
from reidlib.data.augmentation import IMAGENET_MEAN, IMAGENET_STD
from reidlib.data.images import RESIZE_RULE
from reidlib.data.readers.own import list_own
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.files import write_whole
from reidlib.ranking.distances import spans
from reidlib.training.device import Execution
from reidlib.training.runs import Run

_FORMAT = 1
# Rows that are written and read at once.
_ROWS = 4096
_MEND = "write it again with `reidlib embed`"


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of N images, and what is known of these.

    features: float32 (N, D), a memory map where they lie on disk.
    names: paths of the images relative to ``root``, with /.
    persons, cameras: names, "" where unknown; junk and distractors are unknown persons.
    information: JSON types: ``network`` (``Network.key`` of the run), ``run`` (its folder's name),
        ``model``, ``input_size``, ``resize``, ``mean``, ``std``, ``distance``, ``versions``.
    root: where the images lay when they were embedded; None where nobody knows.

    Raises InputError where these are not equally long or there is no image.
    """

    features: np.ndarray
    names: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]
    information: dict
    root: Path | None = None

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
            found = "{} features, {} names, {} persons, {} cameras".format(*lengths)
            raise InputError("every image has a feature, a name, a person and a camera", found, _MEND)
        if not isinstance(self.information.get("network"), str):
            raise InputError("features say which network they come from", "no such note", _MEND)

    def __len__(self) -> int:
        return len(self.names)


def embed_own(network: TrainedNetwork, source: str | Path) -> FeatureSet:
    """Features of one image, a folder or a CSV; see ``list_own`` and ``Network.embed``.

    They are kept in ``files.feature_cache()``, so that the same images are embedded once. Raises InputError
    for a run without weights, before any image is listed.
    """
    key = network.key
    own = list_own(source)
    # One file for each source, so that a list that has grown takes the place of what it was before.
    name = hashlib.sha256(f"{key} {Path(source).expanduser().absolute()}".encode(errors="replace"))
    file = files.feature_cache() / f"{name.hexdigest()[:32]}.npy"
    embedded = network.embed(own.split, keep="features", file=file)
    known = own.split.person_ids > 0
    information = {
        "format": _FORMAT,
        "network": key,
        "run": network.run.folder.resolve().name,
        "model": network.run.configuration["model"]["kind"],
        "input_size": list(network.input_size),
        "resize": RESIZE_RULE,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "distance": "Euclidean",
        "versions": files.versions(),
    }
    return FeatureSet(
        embedded.features,
        own.names,
        tuple(person if known else "" for person, known in zip(own.persons, known, strict=True)),
        own.cameras,
        information,
        own.root,
    )


def write_features(
    run: str | Path, images: str | Path, out: str | Path, *, device: str = "auto", progress: bool = True
) -> FeatureSet:
    """Embed own images by a trained run and write them to ``out`` (.npz or .parquet); ``reidlib embed``.

    Raises InputError for another ending and a file that is there already, before any work; for what
    ``list_own`` refuses; and for images that cannot be decoded. What was embedded before an interruption is
    kept, and the same call goes on from there.
    """
    out = Path(out).expanduser()
    _format(out)
    if out.exists():
        raise InputError(
            "features are written to a new file", f"{out}, which is there", "name another, or remove it"
        )
    embedded = embed_own(TrainedNetwork(Run.open(run), Execution(device=device, progress=progress)), images)
    save_features(embedded, out)
    return embedded


def save_features(features: FeatureSet, out: Path) -> None:
    """Write features to a .npz or .parquet file, whole or not at all.

    npz: arrays ``features``, ``names``, ``persons``, ``cameras`` and ``information``, a JSON text. Parquet:
    columns ``name``, ``person``, ``camera``, ``feature`` (a list of float32), and the JSON text under
    ``reidlib`` in the metadata. The folder of the images is noted relative to the file's.
    """
    _, write = _format(out)
    try:
        "".join((*features.names, *features.persons, *features.cameras)).encode()
    except UnicodeEncodeError as error:
        rule = "names in a file of features are Unicode"
        raise InputError(rule, ascii(error.object[error.start - 9 : error.end + 9]), "rename it") from error
    information = dict(features.information)
    if features.root is not None:
        information["root"] = Path(os.path.relpath(features.root, out.parent)).as_posix()
    text = json.dumps(information)
    write_whole(out, lambda partial: write(partial, features, text))


def read_features(file: str | Path) -> FeatureSet:
    """Features from a file that ``save_features`` wrote; those of a .npz stay on disk as a memory map.

    Raises InputError for a file that is not there, another ending, and one that is damaged or another's.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise InputError(
            "features are read from a file that `reidlib embed` wrote", f"no file {file}", "check the path"
        )
    read, _ = _format(file)
    try:
        features_nd, names, persons, cameras, text = read(file)
        information = json.loads(text)
        root = information.pop("root", None)
        if information["format"] != _FORMAT:
            raise ValueError(f"format {information['format']} instead of {_FORMAT}")
        place = None if root is None else Path(os.path.normpath(file.absolute().parent / root))
        return FeatureSet(features_nd, names, persons, cameras, information, place)
    except InputError:
        raise
    except Exception as error:  # readers report damage as any of half a dozen types
        raise InputError(
            "a file of features was written whole by `reidlib embed`",
            f"{file}: {str(error).partition(chr(10))[0] or type(error).__name__}",
            _MEND,
        ) from error


def is_feature_file(source: str | Path) -> bool:
    """Has the name the ending of a file of features?"""
    return Path(source).suffix.lower() in _FORMATS


def _format(file: Path) -> tuple[Callable, Callable]:
    """What reads, and what writes, a file of this name."""
    if not is_feature_file(file):
        raise InputError("features are kept in .npz or .parquet", file, "end the name in one of those")
    return _FORMATS[file.suffix.lower()]


def _write_npz(path: Path, features: FeatureSet, text: str) -> None:
    columns = {name: np.array(getattr(features, name), str) for name in ("names", "persons", "cameras")}
    with path.open("wb") as stream:  # a name would be given the ending .npz
        np.savez(stream, features=features.features, information=np.array(text), **columns)


def _read_npz(file: Path) -> tuple[np.ndarray, tuple, tuple, tuple, str]:
    with np.load(file) as content:
        columns = (tuple(content[name].tolist()) for name in ("names", "persons", "cameras"))
        return _mapped(file, "features.npy"), *columns, str(content["information"])


def _mapped(file: Path, member: str) -> np.ndarray:
    """A memory map of an array in an uncompressed archive, as ``np.savez`` writes it."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(member)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed")
        with archive.open(entry) as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            header = stream.tell()
    with file.open("rb") as stream:
        # The entry's own header repeats the name and may hold more than the archive's directory says.
        stream.seek(entry.header_offset + 26)
        lengths = struct.unpack("<HH", stream.read(4))
    return np.memmap(file, dtype, "r", entry.header_offset + 30 + sum(lengths) + header, shape)


def _write_parquet(path: Path, features: FeatureSet, text: str) -> None:
    import pyarrow as pa  # these take a third of a second to import, and few need them
    from pyarrow import parquet

    strings = [(name, pa.string()) for name in ("name", "person", "camera")]
    schema = pa.schema([*strings, ("feature", pa.list_(pa.float32()))], metadata={"reidlib": text})
    with parquet.ParquetWriter(path, schema) as writer:
        for span in spans(len(features), _ROWS):
            rows_nd = features.features[span]
            offsets = np.arange(len(rows_nd) + 1, dtype=np.int32) * rows_nd.shape[1]
            columns = [features.names[span], features.persons[span], features.cameras[span]]
            lists = pa.ListArray.from_arrays(offsets, pa.array(rows_nd.ravel()))
            writer.write_batch(
                pa.record_batch([*(pa.array(c, pa.string()) for c in columns), lists], schema=schema)
            )


def _read_parquet(file: Path) -> tuple[np.ndarray, tuple, tuple, tuple, str]:
    from pyarrow import parquet

    with parquet.ParquetFile(file) as content:
        text = (content.schema_arrow.metadata or {})[b"reidlib"].decode()
        count = content.metadata.num_rows
        features_nd, columns, done = None, ([], [], []), 0
        for batch in content.iter_batches(_ROWS, columns=["name", "person", "camera", "feature"]):
            flat = batch.column(3).flatten().to_numpy()
            rows_nd = flat.reshape(len(batch), -1)
            if features_nd is None:
                features_nd = np.empty((count, rows_nd.shape[1]), np.float32)
            features_nd[done : done + len(rows_nd)] = rows_nd
            done += len(rows_nd)
            for column, name in zip(columns, ("name", "person", "camera"), strict=True):
                column += batch.column(name).to_pylist()
    if features_nd is None:
        raise ValueError("no image")
    return features_nd, *map(tuple, columns), text


_FORMATS = {".npz": (_read_npz, _write_npz), ".parquet": (_read_parquet, _write_parquet)}
