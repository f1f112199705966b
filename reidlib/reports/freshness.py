"""Whether a notebook has to run again: the hash of all that its result stands on, and what it left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from reidlib.errors import InputError
from reidlib.reports import index as report
from reidlib.reports import notebook as notebooks
from reidlib.reports.notebook import Source


def digests(
    inputs: Mapping[str, str], sources: Mapping[str, Source], parameters_of: Callable[[Source], dict]
) -> dict[str, str]:
    """Hash of everything that can change a notebook's result, those it depends on included.

    inputs: fingerprints of what notebooks read besides. parameters_of: what is injected, without the
    report's own place: moved or renamed, it is as good as before.
    Raises InputError for notebooks that depend on each other in a circle or on one that is not there.
    """
    environment = notebooks.environment_digest()
    known: dict[str, str] = {}

    def digest(name: str, path: Path, chain: tuple[str, ...]) -> str:
        if name in chain:
            raise InputError(
                "notebooks must not depend on each other in a circle",
                " → ".join((*chain, name)),
                "remove one depends_on",
            )
        if name not in known:
            if name not in sources and not path.is_file():
                raise InputError(
                    "depends_on names notebooks of the same folder",
                    f"{name} in {chain[-1]}",
                    "correct the notebook's metadata",
                )
            source = sources.get(name) or notebooks.read_source(path)
            below = [
                digest(other, path.with_name(f"{other}.ipynb"), (*chain, name)) for other in source.depends_on
            ]
            state = [source.content, parameters_of(source), environment, dict(inputs), below]
            known[name] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return known[name]

    return {name: digest(name, source.path, ()) for name, source in sources.items()}


def unchanged(folder: Path, digest: str) -> bool:
    """Whether a notebook's result stands: of this digest, whole, its runs where they were, none missing."""
    status = report.read_json(folder / "status.json")
    runs = report.read_json(folder / "result.json").get("runs") or []
    return (
        status.get("state") == "done"
        and status.get("digest") == digest
        and all((folder / name).is_file() for name in ("notebook.ipynb", "index.html", "result.json"))
        and not any("missing" in run for run in runs)
        and all(Path(run["folder"]).is_dir() for run in runs if run.get("folder"))
    )
