"""Trained runs: folders that are found by the hash of their configuration instead of trained again.

A run's folder can be copied to another machine. It holds ``config.json``, ``history.jsonl``, ``steps.npz``,
``scores.json``, ``rankings.npz``, ``run.json`` (versions, device, duration) and ``weights.pt``. All files
except the weights are small, and tables and figures need only the small files. An imported run has no
``history.jsonl`` and no ``steps.npz``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import read_json, write_json
from reidlib.text import ESCAPE

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("reidlib")

_FINISHED = "run.json"  # written last: a run with this file is finished
_FAILURE = "failure.txt"  # why the last training failed; the next training removes it
CHECKPOINT = "checkpoint.pt"


def configuration_hash(configuration: dict) -> str:
    """Return twelve hexadecimal digits that identify a configuration on every machine."""
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """A finished run; its files are read when needed.

    Attributes:
        folder: The run's folder, which may come from another machine.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Return the finished run in a folder.

        Args:
            folder: The run's folder. A relative path is searched in the working directory, in the repository
                and in ``files.runs()``, because JupyterLab starts a notebook in the notebook's folder.

        Returns:
            The run.

        Raises:
            InputError: If there is no run, or its training has not finished.
        """
        path = Path(folder).expanduser()
        candidates = [base / path for base in (Path.cwd(), files.project(), files.runs())]
        folder = next((path for path in candidates if (path / "config.json").is_file()), candidates[0])
        if not (folder / "config.json").is_file():
            raise InputError(
                "a run's folder holds config.json", folder, "name a folder that `reidlib train` made"
            )
        if not (folder / _FINISHED).is_file():
            value = f"{folder}, which has no {_FINISHED}"
            mend = "run the same training again: it continues from its checkpoint"
            raise InputError("a run is evaluated after its training has finished", value, mend)
        return cls(folder)

    def read(self, name: str) -> dict:
        """Return the object in one of the run's JSON files.

        Args:
            name: The file's name within the run's folder.

        Returns:
            The object.

        Raises:
            InputError: If the file is missing or damaged.
        """
        return read_json(self.folder / name)

    def find(self, name: str) -> dict | None:
        """Return the object in one of the run's JSON files, or None.

        Args:
            name: The file's name within the run's folder.

        Returns:
            The object; None if the file is missing or damaged.
        """
        try:
            return self.read(name)
        except InputError:
            return None

    @cached_property
    def configuration(self) -> dict:
        """Content of ``config.json``; see ``RunConfiguration.from_json``."""
        return self.read("config.json")

    @cached_property
    def information(self) -> dict:
        """Versions, commit, device, precision, number of steps, duration in seconds, memory in MiB."""
        return self.read(_FINISHED)

    @cached_property
    def history(self) -> list[dict]:
        """Means of each epoch: loss terms, accuracy, learning rate, images per second."""
        text = self._training_file("history.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Each quantity over all steps, float32; NaN in steps that did not measure it.

        Returns:
            The loss terms by name and "accuracy". With balanced losses also "weight_…", the factor of a loss,
            and "focal_…", its focal weight after the step. With identity-balanced batches also
            "balanced_batches", 1 in the steps with such a batch.
        """
        with np.load(self._training_file("steps.npz")) as file:
            return dict(file)

    def _training_file(self, name: str) -> Path:
        """Return a file that only a training writes; InputError if the run has none."""
        if not (self.folder / name).is_file():
            mend = "copy it from where the run was trained; a run of `reidlib import` has none"
            raise InputError("this needs what a training wrote", f"no {name} in {self.folder}", mend)
        return self.folder / name

    @property
    def scores(self) -> dict | None:
        """Content of ``scores.json``; None before the run is evaluated."""
        path = self.folder / "scores.json"
        return read_json(path) if path.is_file() else None

    @property
    def has_weights(self) -> bool:
        """Whether the folder holds the trained weights; a run may be copied without them."""
        return (self.folder / "weights.pt").is_file()

    def weights(self) -> dict[str, Tensor]:
        """Return the trained ``state_dict``; InputError if the folder does not hold finite weights."""
        import torch  # takes seconds to import

        from reidlib.training.checkpoint import load_tensors

        if not self.has_weights:
            mend = "copy weights.pt from where it was made, or remove the folder to train or import again"
            raise InputError("this needs the run's weights", f"no weights.pt in {self.folder}", mend)
        mend = "copy it again, or remove the run's folder to train or import again"
        weights = load_tensors(self.folder / "weights.pt", mend)
        for name, tensor in weights.items():
            if torch.is_tensor(tensor) and (tensor.is_complex() or not tensor.isfinite().all()):
                value = f"complex numbers, NaN or infinity in {name} of {self.folder / 'weights.pt'}"
                raise InputError("a run's weights are finite", value, mend)
        return weights


def find(configuration: dict, folder: Path) -> Run | None:
    """Find the run of a configuration, or None; InputError if its folder holds another configuration."""
    run = find_by_hash(configuration_hash(configuration), folder)
    return (
        _find_on_same_partitions(configuration, folder)
        if run is None
        else _checked_run(run.folder, configuration)
    )


def _find_on_same_partitions(configuration: dict, folder: Path) -> Run | None:
    """Find a run on the same data, if the path of its file of partitions is written in another way."""
    if ",partitions=" not in configuration.get("benchmark", ""):
        return None

    def without_path(content: dict) -> dict:
        return {**content, "benchmark": re.sub(",partitions=[^,]*", "", content.get("benchmark", ""))}

    # The fingerprint ``data`` covers what the partitions make of the benchmark.
    requested = without_path(json.loads(json.dumps(configuration)))
    for path in sorted(folder.glob(f"*/{_FINISHED}")):
        stored = files.find_json(path.with_name("config.json"))
        if stored is not None and without_path(stored) == requested:
            return Run(path.parent)
    return None


def find_by_hash(digest: str, folder: Path) -> Run | None:
    """Return the finished run in a folder of runs whose configuration has this hash, or None."""
    candidates = (path for path in sorted(folder.glob(f"*-{digest}")) if (path / _FINISHED).is_file())
    return next(map(Run, candidates), None)


def find_failure(configuration: dict, folder: Path) -> str | None:
    """Return in one line why the last training of a configuration failed, or None if it did not."""
    paths = sorted(folder.glob(f"*-{configuration_hash(configuration)}/{_FAILURE}"))
    return _read_failure(paths[0]) if paths else None


def _read_failure(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()


def find_or_train(
    configuration: dict,
    train: Callable[[Path], dict],
    *,
    name: str,
    folder: Path,
    since: float | None = None,
) -> Run:
    """Return the finished run of a configuration; one process trains it if there is none, others wait."""
    # ``train`` gets the run's folder, continues from a checkpoint in it and returns the content of
    # ``run.json``. ``name`` is the readable beginning of the folder's name. A training that failed after
    # ``since``, in seconds since 1970, is not tried again: of many processes that need it, one tries.
    digest = configuration_hash(configuration)
    existing = sorted(folder.glob(f"*-{digest}"))
    run_folder = existing[0] if existing else folder / f"{files.short_name(name, 200)}-{digest}"

    def build() -> Run:
        if (run_folder / "config.json").is_file():
            _checked_run(run_folder, configuration)
        for stale in run_folder.glob(".*.partial"):
            stale.unlink()  # this process holds the lock, so a killed process left the file
        failure = run_folder / _FAILURE
        if since is not None and failure.is_file() and failure.stat().st_mtime > since:
            value = f"{run_folder.name}: {_read_failure(failure)}"
            mend = "remove the cause and repeat the command"
            raise InputError("a training that has failed is not tried again at once", value, mend)
        write_json(run_folder / "config.json", configuration)
        failure.unlink(missing_ok=True)
        try:
            information = train(run_folder)
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk may be the cause
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                failure.write_text(reason, encoding="utf-8", errors=ESCAPE)
            history = run_folder / "history.jsonl"
            has_begun = (run_folder / CHECKPOINT).exists() or (history.is_file() and history.stat().st_size)
            if isinstance(error, InputError) and not has_begun:
                shutil.rmtree(run_folder)  # a training refused before its first epoch leaves no files
            raise
        write_json(
            run_folder / _FINISHED, {**information, "versions": files.versions(), "commit": files.commit()}
        )
        # Only now: if the process were killed between the two, all would be trained again.
        (run_folder / CHECKPOINT).unlink(missing_ok=True)
        return _checked_run(run_folder, configuration)

    return files.build_once(
        folder / f".{digest}.lock",
        lambda: find(configuration, folder),
        build,
        on_wait=lambda: logger.warning(f"{run_folder.name}: another process is training this run; waiting"),
        make_error=lambda error: InputError(
            "the folder of runs can be written",
            f"{folder}: {error.strerror or error}",
            files.writing_mend(folder, error, "choose another with --runs"),
        ),
    )


def _checked_run(run_folder: Path, configuration: dict) -> Run:
    stored = read_json(run_folder / "config.json")
    if stored != json.loads(json.dumps(configuration)):
        keys = sorted({*stored, *configuration})
        different = ", ".join(key for key in keys if stored.get(key) != configuration.get(key))
        rule = "a run's folder holds the configuration whose hash is in its name"
        mend = "move the folder away; the run will be trained again"
        raise InputError(rule, f"{run_folder}, whose {different} differ", mend)
    return Run(run_folder)
