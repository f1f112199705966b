"""The package ``analysis`` as a notebook imports it."""

import subprocess
import sys


def test_a_notebooks_imports_do_not_load_torch():
    program = (
        "import sys\n"
        "from reidlib.analysis import Cell, ExperimentScores, style_table, table_records\n"
        "from reidlib.analysis import ablations, benchmark_tables, claims, misalignment\n"
        "print('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
