"""One notebook: its declarations, the digest of all that its result depends on, and its execution."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import nbformat
import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from reidlib.errors import InputError
from reidlib.files import exclusive_lock, load_matplotlib
from reidlib.reports.parameters import REQUIRED, assigned_names
from reidlib.reports.processes import Failure, error_summary

# The executed copy during the execution; it gets its final name only after the kernel has ended.
PARTIAL = "notebook.partial.ipynb"
# The progress that long work inside a notebook reports.
PROGRESS = "progress.txt"
# Bytes of a socket's file before its number: macOS allows 103 with it, Linux 107.
_LONGEST_SOCKET = 98


@dataclass(frozen=True)
class Source:
    """A notebook of the repository without its outputs.

    Attributes:
        path: The notebook's file.
        name: The file name without ``.ipynb``.
        title: The first Markdown heading, or the name.
        parameters: Names that the parameters cell assigns.
        depends_on: Names of the notebooks that must have succeeded before this one runs.
        alone: Whether it measures this machine's speed, and so runs when all other work has ended.
        trainings: Rows of ``EXPERIMENTS`` whose runs the notebook gathers.
        perturbations: For some of these rows, names of the perturbations that the notebook evaluates them
            under, or "all".
        metrics: For some of these rows, learnt metrics by which the notebook scores them.
        imports: The import statements of its execution, and those by which its cells import this package.
        content: Everything in the notebook that can change what it does, as JSON text.
    """

    path: Path
    name: str
    title: str
    parameters: frozenset[str]
    depends_on: tuple[str, ...]
    alone: bool
    trainings: tuple[str, ...]
    perturbations: Mapping[str, str | Sequence[str]]
    metrics: Mapping[str, Sequence[str]]
    imports: tuple[str, ...]
    content: str


def notebook_number(path: Path) -> int:
    """Return the number at the beginning of a notebook's name, or of its folder's in a report."""
    return int(path.name.split("_")[0])


def sorted_by_number(paths: Iterable[Path]) -> list[Path]:
    """Return the paths whose names begin with a number, in the order of these numbers."""
    numbered = (path for path in paths if re.match(r"\d+_", path.name))
    return sorted(numbered, key=lambda path: (notebook_number(path), path.name))


def read_source(path: Path) -> Source:
    """Read a notebook's declarations from its parameters cell and its metadata.

    Args:
        path: The notebook's file.

    Returns:
        The notebook without its outputs.

    Raises:
        InputError: If the file is no notebook, if it has not exactly one code cell tagged ``parameters``,
            or if that cell does not assign ``profile`` and ``out``.
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
            "tag one cell, which assigns literals only, and no other",
        )
    try:
        parameters = assigned_names(tagged[0].source)
    except SyntaxError as error:
        raise InputError(
            "the parameters cell must hold plain assignments",
            f"line {error.lineno} of it in {path.name}",
            "write `name = literal`",
        ) from error
    if missing := [name for name in REQUIRED if name not in parameters]:
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
        parameters=parameters,
        depends_on=tuple(metadata.get("depends_on", ())),
        alone=bool(metadata.get("alone", False)),
        trainings=tuple(metadata.get("trainings", ())),
        perturbations=metadata.get("perturbed", {}),
        metrics=metadata.get("metrics", {}),
        imports=("import papermill", "import ipykernel.kernelapp", *_imports(notebook)),
        content=json.dumps(
            [[cell.cell_type, cell.source, cell.metadata.get("tags", [])] for cell in notebook.cells]
        ),
    )


def _imports(notebook: nbformat.NotebookNode) -> Iterator[str]:
    for cell in notebook.cells:
        with contextlib.suppress(SyntaxError, ValueError):  # such as a line for the shell
            for node in ast.parse(cell.source).body if cell.cell_type == "code" else ():
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("reidlib"):
                    yield ast.unparse(node)


def _title(notebook: nbformat.NotebookNode) -> str:
    """Return the first Markdown heading as plain text, or an empty text."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#+\s+(.+)$", text, re.MULTILINE)
    return heading[1].strip().rstrip("#").strip() if heading else ""


def environment_digest() -> str:
    """Return a hash of what every notebook depends on: this package's files, torch, numpy and Python."""
    package = Path(__file__).resolve().parent.parent
    state = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        # Data, templates and style sheets change the result of a notebook as code does.
        if "__pycache__" in path.parts or not path.is_file():
            continue
        state.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    # From the installed metadata: importing torch takes seconds, which an unchanged report need not wait for.
    for distribution in ("torch", "torchvision", "numpy"):
        state.update(f"{distribution} {version(distribution)}\0".encode())
    state.update(sys.version.encode())
    return state.hexdigest()


def result_digests(
    inputs: Mapping[str, str], sources: Mapping[str, Source], parameters_of: Callable[[Source], dict]
) -> dict[str, str]:
    """Return, by name, a hash of everything that can change a notebook's result."""
    # This includes the notebooks that it depends on, and `inputs`, fingerprints of other data that notebooks
    # read. `parameters_of` gives the injected parameters without the report's folder, so that a moved or
    # renamed report remains valid.
    environment = environment_digest()
    digest_by_name: dict[str, str] = {}

    def digest(name: str, path: Path, chain: tuple[str, ...]) -> str:
        if name in chain:
            raise InputError(
                "notebooks must not depend on each other in a circle",
                " → ".join((*chain, name)),
                "remove one depends_on",
            )
        if name not in digest_by_name:
            if name not in sources and not path.is_file():
                raise InputError(
                    "depends_on names notebooks of the same folder",
                    f"{name} in {chain[-1]}",
                    "correct the name in the notebook's metadata, or remove it there",
                )
            source = sources.get(name) or read_source(path)
            if source.alone and chain:
                raise InputError(
                    "no notebook depends on one that runs alone when all others have ended",
                    f"{name} in {chain[-1]}",
                    "remove it from depends_on, or `alone` from its metadata",
                )
            below = [
                digest(other, path.with_name(f"{other}.ipynb"), (*chain, name)) for other in source.depends_on
            ]
            state = [source.content, parameters_of(source), environment, dict(inputs), below]
            digest_by_name[name] = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
        return digest_by_name[name]

    return {name: digest(name, source.path, ()) for name, source in sources.items()}


class _CurrentPython(AsyncKernelManager):
    """Starts the running interpreter as the kernel, whatever kernelspecs are installed."""

    copy: _KernelCopy | None = None
    sockets: Path

    def __init__(self, **options: Any):
        super().__init__(**options)
        # A port found free can be another program's before the kernel binds it, and the kernel then dies.
        # Files of sockets are nobody else's.
        address = str(self.sockets / "kernel")
        if zmq.has("ipc") and len(os.fsencode(address)) <= _LONGEST_SOCKET:
            self.transport, self.ip = "ipc", address

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        # Without these options, every page has a warning about TCP, and kernels wait for each other's history
        # database.
        quiet = ["--log-level=CRITICAL", "--HistoryManager.hist_file=:memory:"]
        return KernelSpec(argv=command + quiet, display_name=self.kernel_name, language="python")

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        if self.copy is None:
            return await super()._async_launch_kernel(kernel_cmd, **kw)
        provisioner: Any = self.provisioner  # that of processes on this machine
        provisioner.process, provisioner.pid = self.copy, self.copy.pid
        provisioner.pgid = self.copy.pid
        self.copy.launch(kernel_cmd[3:], kw["env"], Path.cwd())
        self._reconcile_connection_info(provisioner.connection_info)


class _KernelCopy:
    """A copy of this process that becomes a kernel, used like ``subprocess.Popen``."""

    # It has imported what the notebook needs. It is made before this process has an event loop and threads.
    stdin = stdout = stderr = None

    def __init__(self):
        context = multiprocessing.get_context("fork")
        arguments, self._arguments = context.Pipe(duplex=False)
        self._process = context.Process(target=_become_kernel, args=(arguments, self._arguments))
        self._process.start()
        self.pid = cast("int", self._process.pid)

    def launch(self, arguments: list[str], environment: dict[str, str], folder: Path) -> None:
        """Start the kernel in a folder."""
        self._arguments.send((arguments, environment, folder))

    def poll(self) -> int | None:
        """Return the exit status; None before the end."""
        return self._process.exitcode

    def wait(self) -> int | None:
        """Return the exit status at the end."""
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel."""
        os.kill(self.pid, number)


def _become_kernel(arguments: Connection, sender: Connection) -> None:
    sender.close()
    os.setsid()  # as for a kernel that is started
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        options, environment, folder = arguments.recv()
    except EOFError:  # the process that would use it has ended
        return
    os.environ.update(environment)
    os.chdir(folder)
    for name in ("tqdm.auto", "tqdm.autonotebook"):  # they choose a kind of bar when they are imported
        sys.modules.pop(name, None)
    from ipykernel.kernelapp import IPKernelApp

    # Its default was read from the environment when the class was imported. The kernel ends with this parent.
    app = IPKernelApp.instance(parent_handle=os.getppid())
    app.initialize(options)
    import tqdm.auto  # noqa: F401

    app.start()


def remove_outputs(folder: Path) -> None:
    """Remove the files of an earlier execution, so that they are not taken for those of the next one."""
    for stale in ("result.json", "index.html", "notebook.ipynb", PARTIAL, PROGRESS):
        (folder / stale).unlink(missing_ok=True)


def execute(path: Path, folder: Path, parameters: dict) -> None:
    """Execute a notebook to ``folder / PARTIAL``; ``Failure`` gives its exception in one line."""
    # papermill changes the working directory, so this runs in a separate process.
    load_matplotlib()  # the kernel then leaves out what this process cannot read
    # In a copy of a process that has imported all, the kernel is a copy, too.
    copy = _KernelCopy() if "ipykernel.kernelapp" in sys.modules else None
    import papermill
    from papermill.iorw import LocalHandler, papermill_io

    class AnyName(LocalHandler):
        """Writes JSON with escapes for bytes of file names that are not UTF-8, where papermill fails."""

        def write(self, buf: str, path: str) -> None:
            super().write(buf.encode("utf-8", "backslashreplace").decode("utf-8"), path)

    papermill_io.register(str(folder), AnyName())
    # After the loss of a worker, its kernel may still be ending when the cluster starts the notebook again.
    with exclusive_lock(folder / ".lock"):
        remove_outputs(folder)
        try:
            with tempfile.TemporaryDirectory(prefix="reidlib-", ignore_cleanup_errors=True) as sockets:
                papermill.execute_notebook(
                    _escape_braces(path),
                    _escape_braces(folder / PARTIAL),
                    parameters,
                    kernel_name="reidlib",
                    language="python",
                    cwd=path.parent,
                    progress_bar=False,
                    log_output=False,
                    start_timeout=120,
                    store_widget_state=False,
                    kernel_manager_class=type(
                        "_Kernel", (_CurrentPython,), {"copy": copy, "sockets": Path(sockets)}
                    ),
                    # A large figure on a busy machine takes longer than the default of four seconds.
                    iopub_timeout=60,
                )
        except papermill.PapermillExecutionError as error:
            raise Failure(error_summary(error.ename, error.evalue)) from error
        except Exception as error:  # every failure, such as a dead kernel, must reach the report
            raise Failure(error_summary(type(error).__name__, str(error))) from error


def _escape_braces(path: Path) -> str:
    """Return a path in which papermill does not take braces for placeholders."""
    return str(path).replace("{", "{{").replace("}", "}}")


def cell_progress(folder: Path) -> tuple[int, int] | None:
    """Return the numbers of finished and of all code cells; None if the copy cannot be read now."""
    try:
        cells = json.loads((folder / PARTIAL).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return None  # absent, or being written
    states = [
        cell["metadata"].get("papermill", {}).get("status") for cell in cells if cell["cell_type"] == "code"
    ]
    return states.count("completed"), len(states)
