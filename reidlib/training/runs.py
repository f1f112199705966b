"""A trained run, found again by the hash of its configuration instead of trained again.

A run is a folder that can be carried to another machine: ``config.json``, ``history.jsonl``,
``steps.npz``, ``scores.json``, ``rankings.npz``, ``run.json`` (versions, device,
duration) and ``weights.pt``.
Everything but the weights is small, and tables and figures need only the small files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
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

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("reidlib")

# A run counts as finished once this file is there: it is written last.
_FINISHED = "run.json"
# Why the last training failed; a later one removes it.
_FAILURE = "failure.txt"
# Where a training goes on from.
CHECKPOINT = "checkpoint.pt"


def configuration_hash(configuration: dict) -> str:
    """Twelve hexadecimal digits that name a configuration, the same on every machine."""
    text = json.dumps(configuration, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Run:
    """A finished run's folder, read lazily."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """A run from its folder. Raises InputError where there is none, or an unfinished one.

        A relative path is looked for here, in the clone and among ``files.runs()``, because JupyterLab
        starts a notebook in another folder than the one from which its reader counts.
        """
        given = Path(folder).expanduser()
        places = [base / given for base in (Path.cwd(), files.project(), files.runs())]
        folder = next((place for place in places if (place / "config.json").is_file()), places[0])
        if not (folder / "config.json").is_file():
            raise InputError(
                "a run's folder holds config.json", folder, "name a folder that `reidlib train` made"
            )
        if not (folder / _FINISHED).is_file():
            raise InputError(
                "a run is evaluated after its training has finished",
                f"{folder}, which has no {_FINISHED}",
                "run the same training again: it goes on from its checkpoint",
            )
        return cls(folder)

    @cached_property
    def configuration(self) -> dict:
        return read_json(self.folder / "config.json")

    @cached_property
    def information(self) -> dict:
        """Versions, device, precision, duration in seconds, time of finishing."""
        return read_json(self.folder / _FINISHED)

    @cached_property
    def history(self) -> list[dict]:
        """One dict for each epoch."""
        return [json.loads(line) for line in (self.folder / "history.jsonl").read_text().splitlines()]

    @cached_property
    def steps(self) -> dict[str, np.ndarray]:
        """Each quantity over the training's steps, float32; not a number where a step did not measure it.

        The loss terms by name and ``accuracy``. Where losses were balanced also ``weight_…``, by which a
        loss was multiplied, and ``focal_…``, its focal weight after the step. Where batches could be
        identity-balanced ``balanced_batches``, 1 in the steps whose batch was.
        """
        with np.load(self.folder / "steps.npz") as file:
            return dict(file)

    @property
    def scores(self) -> dict | None:
        """What ``scores.json`` holds, or None before the run is evaluated."""
        path = self.folder / "scores.json"
        return read_json(path) if path.is_file() else None

    @property
    def has_weights(self) -> bool:
        """Whether the trained weights are there; a run may be carried without them."""
        return (self.folder / "weights.pt").is_file()

    def weights(self) -> dict[str, Tensor]:
        """The trained state. Raises InputError where the run was carried here without its weights."""
        from reidlib.training.checkpoint import load_tensors  # torch takes seconds to import

        if not self.has_weights:
            raise InputError(
                "this needs the run's weights",
                f"no weights.pt in {self.folder}",
                "copy weights.pt from the machine that trained it, or remove the folder to train again",
            )
        return load_tensors(
            self.folder / "weights.pt", "copy it again, or remove the run's folder to train again"
        )


def find(configuration: dict, folder: Path) -> Run | None:
    """The finished run of ``configuration`` in a folder of runs; None if there is none.

    It may have been trained on another machine and copied here: its folder's name ends in the configuration's
    hash, whatever stands before. Raises InputError if a folder with its
    hash holds another configuration.
    """
    run = find_hash(configuration_hash(configuration), folder)
    return None if run is None else _checked(run.folder, configuration)


def find_hash(wanted: str, folder: Path) -> Run | None:
    """The finished run whose configuration has this hash in a folder of runs; None if there is none."""
    for existing in sorted(folder.glob(f"*-{wanted}")):
        if (existing / _FINISHED).is_file():
            return Run(existing)
    return None


def failure_of(configuration: dict, folder: Path) -> str | None:
    """Why the last training of ``configuration`` failed, in a line; None where none did."""
    for path in sorted(folder.glob(f"*-{configuration_hash(configuration)}/{_FAILURE}")):
        return path.read_text().strip()
    return None


def find_or_train(
    configuration: dict,
    train: Callable[[Path], dict],
    *,
    name: str,
    folder: Path,
    report: Callable[[str], None] = logger.warning,
    since: float | None = None,
) -> Run:
    """The run of ``configuration``: loaded if it is there, else trained by ``train``.

    configuration: everything that the result depends on, as JSON types; its hash names the folder.
    train: called with the run's folder, returns what to keep in ``run.json``. It resumes from a
        checkpoint in the folder if there is one.
    name: readable beginning of the folder's name; not part of the identity.
    folder: where runs are kept.
    since: seconds since 1970; a training that failed later than this is not tried again, so that of many
        that want it one tries.

    Safe when several processes want the same run: one trains, the others wait and load it.
    Raises InputError if the folder holds another configuration, and for a failure after ``since``.
    """
    digest = configuration_hash(configuration)
    existing = sorted(folder.glob(f"*-{digest}"))
    run_folder = existing[0] if existing else folder / f"{name}-{digest}"

    def build() -> Run:
        if (run_folder / "config.json").is_file():
            _checked(run_folder, configuration)
        for stale in run_folder.glob(".*.partial"):
            stale.unlink()  # the lock is ours, so a killed process left it
        failure = run_folder / _FAILURE
        if since is not None and failure.is_file() and failure.stat().st_mtime > since:
            raise InputError(
                "a training that has failed is not tried again at once",
                f"{run_folder.name}: {failure.read_text().strip()}",
                "mend what is wrong and give the command again",
            )
        write_json(run_folder / "config.json", configuration)
        failure.unlink(missing_ok=True)
        try:
            information = train(run_folder)
        except Exception as error:
            with contextlib.suppress(OSError):  # a full disk may be why
                failure.write_text(f"{type(error).__name__}: {error}".partition("\n")[0])
            history = run_folder / "history.jsonl"
            begun = (run_folder / CHECKPOINT).exists() or (history.is_file() and history.stat().st_size > 0)
            if isinstance(error, InputError) and not begun:
                shutil.rmtree(run_folder)  # a training that was refused before its first epoch leaves nothing
            raise
        write_json(
            run_folder / _FINISHED, {**information, "versions": files.versions(), "commit": files.commit()}
        )
        # Not before: a kill between the two would train all of it again.
        (run_folder / CHECKPOINT).unlink(missing_ok=True)
        return _checked(run_folder, configuration)

    return files.built_once(
        folder / f".{digest}.lock",
        lambda: find(configuration, folder),
        build,
        waiting=lambda: report(f"{run_folder.name}: another process is training this run; waiting for it"),
        refused=lambda error: InputError(
            "the folder of runs can be written", f"{folder}: {error}", "choose another with --runs"
        ),
    )


def _checked(run_folder: Path, configuration: dict) -> Run:
    found = read_json(run_folder / "config.json")
    if found != json.loads(json.dumps(configuration)):
        changed = sorted(key for key in {*found, *configuration} if found.get(key) != configuration.get(key))
        raise InputError(
            "a run's folder holds the configuration that its name says",
            f"{run_folder}, whose {', '.join(changed)} differ",
            "move the folder away; the run will be trained again",
        )
    return Run(run_folder)
