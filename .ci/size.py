"""How large the package is, against what it may be; exits with 1 where it is larger.

Run as ``python .ci/size.py``.
Lines of code are those that are neither blank nor comment nor docstring. The core's lines are all its lines.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "reidlib"
CORE = ("models", "training", "ranking", "reranking.py")
# The first two were 14,800 and 105 until code that notebooks shared moved into the package (325 lines fewer
# there), and progress and the ablations' figures got a module each. They were 15,200 and 107, and the third
# was 4,000, until odd inputs got right answers: six modules for decoding as viewers do, which files are
# images, spellings of names, types of values and of notebooks' parameters, and texts that an encoding lacks.
# They were 16,250, 113 and 4,050 until the papers' constants, model complexity and imported checkpoints came,
# and then queues of trainings without notebooks, fields set by name, and the listing of generated files.
# They were 17,560, 116 and 4,170 until reports became live, and until exact nearest neighbours at a library's
# speed, validation curves and the notebook about performance came. The first was 18,230 until the work of a
# report became copies of one process: a training no longer spends 2.5 s, and a notebook 5 s, on imports. They
# were 18,395 and 120 until photographs came: training folders that serve alone, evidence of runs in git,
# scores of a run on other benchmarks, and a ledger that compares two benchmarks. Files were 126 until modules
# of 500 to 800 lines that held several things were divided. They were 19,900 and 132 until the ledger got
# power: what seeds and minutes a claim needs, looks until it is decided, verdicts from fewer seeds, digests
# of tests, and tables to cite. They were 21,400 and 143 until the upper half of the papers' tables came: four
# learnt metrics and two hand-crafted descriptors, and fine-tuning on photographs: the third was 4,570 before
# a trunk that stays at first. They were 23,600 and 164 until rows of the papers' tables were measured on the
# papers' images: learnt metrics on published partitions, scores by learnt metrics and of pre-trained runs in
# evidence, and a learnt metric in the browser.
# Files were 170 until printed tables and the folders that users give for them, one module, became two. They
# were 24,200 and 172 until learning curves came: thinned training images, their queue, and their statistics.
# The first was 24,700 until every metric was compared on photographs, and ridges were kept with scores.
# It was 25,000 until the ledger named the seeds, or persons, that would show that there is no difference.
# It was 25,100 until differently written sets, runs of other images or recipes and growing curves were told
# apart, and rows that lack a run were named.
# Files were 177 until the four modules of 450 to 620 lines that held several things were divided.
LARGEST = {
    "lines of code": 25_200,
    "files": 184,
    "lines of the core": 4_600,
    "entries in a folder below the top": 12,
}
_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}


def lines_of_code(text: str) -> int:
    """Lines of a module that hold a token of code; a text over several lines counts with all of them."""
    code: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(text.encode()).readline):
        if token.type not in _NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            code.difference_update(range(docstring.lineno, docstring.end_lineno + 1))
    return len(code)


def counts(package: Path) -> dict[str, int]:
    """The package's numbers, named as in ``LARGEST``."""
    files = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    core = [text for path, text in files.items() if path.relative_to(package).parts[0] in CORE]
    folders = {path.parent for path in files if path.parent != package}
    return {
        "lines of code": sum(map(lines_of_code, files.values())),
        "files": len(files),
        "lines of the core": sum(len(text.splitlines()) for text in core),
        "entries in a folder below the top": max(
            sum(not entry.name.startswith("__py") for entry in folder.iterdir()) for folder in folders
        ),
    }


def main(package: Path = PACKAGE) -> int:
    """Print each number beside its bound; 1 where one is exceeded."""
    found = counts(package)
    for name, number in found.items():
        print(f"{name}: {number:,} of {LARGEST[name]:,}{'  TOO MANY' if number > LARGEST[name] else ''}")
    return int(any(number > LARGEST[name] for name, number in found.items()))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
