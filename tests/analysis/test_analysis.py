"""The room as a notebook imports it."""

import subprocess
import sys


def test_what_a_notebook_needs_is_there_without_torch():
    program = (
        "import sys\n"
        "from reidlib.analysis import Cell, Scores, records, styled\n"
        "from reidlib.analysis import ablations, benchmark_tables, claims, misalignment\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
