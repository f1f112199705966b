"""A thousand generated bad inputs: each ends in one clear line or a right result.

980 are commands: all of them run in this process, fifty of them again as processes of their own. Twenty are
notebooks, which papermill runs.

Run with: pytest tests/benchmarks/test_thousand_bad_inputs.py -s
One alone: python tests/bad_inputs.py NUMBER
"""

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import bad_inputs

MINUTES = 10
COMMANDS = [number for number in range(bad_inputs.COUNT) if bad_inputs.kind_of(number) != "notebooks"]
NOTEBOOKS = [number for number in range(bad_inputs.COUNT) if bad_inputs.kind_of(number) == "notebooks"]
PROCESSES = 50  # of the commands
SMALL = {"COMMANDS": COMMANDS[::160], "NOTEBOOKS": NOTEBOOKS[:1], "PROCESSES": 1}


def as_processes(root, seeds):
    """Fifty of every 9th command that needs no other user, who may not be allowed to start Python here."""
    chosen = []
    for number in COMMANDS[::9]:
        case = bad_inputs.make(number, root / "made", seeds)
        chosen += [number] * (not case.as_nobody)
        shutil.rmtree(root / "made")
    chosen = chosen[:PROCESSES]
    assert len(chosen) == PROCESSES
    return chosen


def test_a_thousand_bad_inputs(capsys):
    begin, spent = time.perf_counter(), sum(os.times()[:4])
    endings, failures = {}, []
    with bad_inputs.prepared() as (root, seeds), ThreadPoolExecutor(1) as other_core:

        def alone(number):
            return number, bad_inputs.check(number, root / "alone", seeds, alone=True)

        (root / "alone").mkdir(mode=0o755)
        numbers = as_processes(root, seeds)
        processes = [other_core.submit(alone, number) for number in (*NOTEBOOKS, *numbers)]
        for number in COMMANDS:
            with capsys.disabled():
                case, end, wrong = bad_inputs.check(number, root, seeds)
            endings[number] = bad_inputs.ending_name(case, end)
            if wrong:
                failures.append(bad_inputs.describe(number, case, end, wrong))
        for process in processes:
            number, (case, end, wrong) = process.result()
            same = endings.setdefault(number, bad_inputs.ending_name(case, end))
            if same != bad_inputs.ending_name(case, end):
                wrong = [*wrong, f"in one process {same}, alone {bad_inputs.ending_name(case, end)}"]
            if wrong:
                failures.append("alone: " + bad_inputs.describe(number, case, end, wrong))
    minutes, spent = (time.perf_counter() - begin) / 60, (sum(os.times()[:4]) - spent) / 60
    with capsys.disabled():
        print(f"\n{bad_inputs.table(endings)}")
        print(
            f"{len(endings):,} bad inputs (seed {bad_inputs.SEED}), {len(numbers)} of them also as "
            f"processes, {len(NOTEBOOKS)} as notebooks, in {minutes:.1f} minutes "
            f"({spent:.1f} of a core): {len(failures)} failures"
        )
    assert not failures, "\n\n".join(failures)
    assert spent <= 2 * MINUTES  # of two cores, which another program may use, too
