"""One notebook: what it declares, what its result stands on, and its execution in a kernel of its own."""

from __future__ import annotations

import hashlib
import json
import re
import symtable
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from reidlib.errors import InputError
from reidlib.files import alone
from reidlib.reports.processes import Failure, one_line

# The executed copy while it grows; it gets its final name only when the kernel has ended.
PARTIAL = "notebook.partial.ipynb"
# What long work inside a notebook says of itself while it runs.
PROGRESS = "progress.txt"
_REQUIRED = ("profile", "out")


@dataclass(frozen=True)
class Source:
    """A notebook as it stands in the repository, without its outputs.

    name: the file name without its ending. declared: names of the parameters cell. depends_on: names of
    the notebooks that must have succeeded before this one runs. trainings: the rows of ``EXPERIMENTS`` that
    it gathers. perturbed: of some of them, the names of the conditions that it evaluates them under, or
    "all". content: everything that can change what the notebook does.
    """

    path: Path
    name: str
    title: str
    declared: frozenset[str]
    depends_on: tuple[str, ...]
    trainings: tuple[str, ...]
    perturbed: Mapping[str, str | Sequence[str]]
    content: str


def notebook_number(path: Path) -> int:
    """The number that a notebook's name begins with, as that of its folder in a report does."""
    return int(path.name.split("_")[0])


def numbered(paths: Iterable[Path]) -> list[Path]:
    """Those that begin with a number, in its order."""
    found = (path for path in paths if re.match(r"\d+_", path.name))
    return sorted(found, key=lambda path: (notebook_number(path), path.name))


def read_source(path: Path) -> Source:
    """Read a notebook's declarations.

    Raises InputError when the file is no notebook, when it has no cell tagged ``parameters``, or when
    that cell does not declare ``profile`` and ``out``.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except OSError as error:
        raise InputError(
            "a notebook must be readable", f"{path} ({error.strerror})", "check the path"
        ) from error
    except (ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(
            "a notebook must be valid Jupyter JSON", f"{path} ({reason})", "restore it from git"
        ) from error
    tagged = [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(tagged) != 1:
        raise InputError(
            "a notebook must have exactly one code cell tagged `parameters`",
            f"{len(tagged)} of them in {path.name}",
            "tag its second cell, with literals only",
        )
    declared = _assigned_names(tagged[0].source, path)
    if missing := [name for name in _REQUIRED if name not in declared]:
        raise InputError(
            "the parameters cell must declare `profile` and `out`",
            f"{path.name} without {' and '.join(missing)}",
            f'add the line {missing[0]} = ""',
        )
    metadata = notebook.metadata.get("reidlib", {})
    return Source(
        path=path,
        name=path.stem,
        title=_title(notebook) or path.stem,
        declared=declared,
        depends_on=tuple(metadata.get("depends_on", ())),
        trainings=tuple(metadata.get("trainings", ())),
        perturbed=metadata.get("perturbed", {}),
        content=json.dumps(
            [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells]
        ),
    )


def _assigned_names(code: str, path: Path) -> frozenset[str]:
    """Names that a parameters cell assigns at its top level."""
    try:
        symbols = symtable.symtable(code, path.name, "exec").get_symbols()
    except SyntaxError as error:
        raise InputError(
            "the parameters cell must hold plain assignments",
            f"line {error.lineno} of it in {path.name}",
            "write `name = literal`",
        ) from error
    return frozenset(symbol.get_name() for symbol in symbols if symbol.is_assigned())


def _title(notebook: nbformat.NotebookNode) -> str:
    """First Markdown heading, as plain text."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.search(r"^#+\s+(.+)$", text, re.MULTILINE)
    return found[1].strip().rstrip("#").strip() if found else ""


def environment_digest() -> str:
    """Hash of what every notebook stands on: this package's files and the versions below it.

    Versions are read from the installed metadata, because importing torch takes seconds that an
    unchanged report does not have.
    """
    package = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        # Data, templates and style sheets decide what a notebook shows as much as code does.
        if "__pycache__" in path.parts or not path.is_file():
            continue
        state.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for distribution in ("torch", "torchvision", "numpy"):
        state.update(f"{distribution} {version(distribution)}\0".encode())
    state.update(sys.version.encode())
    return state.hexdigest()


def digests(
    inputs: Mapping[str, str], sources: Mapping[str, Source], parameters_of: Callable[[Source], dict]
) -> dict[str, str]:
    """Hash of everything that can change a notebook's result, those it depends on included.

    inputs: fingerprints of what notebooks read besides. parameters_of: what is injected, without the
    report's own place: moved or renamed, it is as good as before.
    Raises InputError for notebooks that depend on each other in a circle or on one that is not there.
    """
    environment = environment_digest()
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
            source = sources.get(name) or read_source(path)
            below = [
                digest(other, path.with_name(f"{other}.ipynb"), (*chain, name)) for other in source.depends_on
            ]
            state = [source.content, parameters_of(source), environment, dict(inputs), below]
            known[name] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return known[name]

    return {name: digest(name, source.path, ()) for name, source in sources.items()}


class _ThisPython(AsyncKernelManager):
    """The running interpreter as the only kernel, whatever kernelspecs are installed or shadow it."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        # Without these: a warning about TCP in every page, and kernels that wait for each other's
        # history database.
        quiet = ["--log-level=CRITICAL", "--HistoryManager.hist_file=:memory:"]
        return KernelSpec(argv=command + quiet, display_name=self.kernel_name, language="python")


def clear(folder: Path) -> None:
    """Remove what an earlier execution left: nothing of it may pass for the next one's."""
    for stale in ("result.json", "index.html", "notebook.ipynb", PARTIAL, PROGRESS):
        (folder / stale).unlink(missing_ok=True)


def execute(path: Path, folder: Path, parameters: dict) -> None:
    """Execute a notebook with its injected parameters; the copy grows as ``folder / PARTIAL``.

    Runs in a process of its own, because papermill changes the working directory. Raises Failure with the
    notebook's exception in one line.
    """
    import papermill

    # A cluster starts the notebook of a lost worker again while that worker's kernel may still be ending.
    with alone(folder / ".lock"):
        clear(folder)
        try:
            papermill.execute_notebook(
                _literal(path),
                _literal(folder / PARTIAL),
                parameters,
                kernel_name="reidlib",
                language="python",
                cwd=path.parent,
                progress_bar=False,
                log_output=False,
                start_timeout=120,
                store_widget_state=False,
                kernel_manager_class=_ThisPython,
                # A large figure on a busy machine takes longer than the default of four seconds.
                iopub_timeout=60,
            )
        except papermill.PapermillExecutionError as error:
            raise Failure(one_line(error.ename, error.evalue)) from error
        except Exception as error:  # any failure, a dead kernel's above all, must reach the report
            raise Failure(one_line(type(error).__name__, str(error))) from error


def _literal(path: Path) -> str:
    """papermill takes braces in a path for placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def progress(folder: Path) -> tuple[int, int] | None:
    """Code cells finished and code cells in all, from the growing copy; None if it cannot be read now."""
    try:
        cells = json.loads((folder / PARTIAL).read_text())["cells"]
    except (OSError, ValueError, KeyError):
        return None  # not there yet, or caught while it is written
    states = [
        cell["metadata"].get("papermill", {}).get("status") for cell in cells if cell["cell_type"] == "code"
    ]
    return states.count("completed"), len(states)
