"""The first of the thousand bad inputs of ``tests/benchmarks/test_thousand_bad_inputs.py``."""

import bad_inputs
import pytest


@pytest.fixture(scope="module")
def valid():
    with bad_inputs.prepared() as root_and_seeds:
        yield root_and_seeds


NUMBERS = [number for number in range(bad_inputs.COUNT) if bad_inputs.kind_of(number) != "notebooks"][:60]


def test_each_kind_is_among_them():
    assert {bad_inputs.kind_of(number) for number in NUMBERS} == bad_inputs.KINDS.keys() - {"notebooks"}


@pytest.mark.parametrize("number", NUMBERS)
def test_an_input_ends_in_one_clear_line_or_a_right_result(number, valid):
    case, end, wrong = bad_inputs.check(number, *valid)
    assert not wrong, bad_inputs.describe(number, case, end, wrong)


def test_an_input_is_the_same_when_it_is_made_again(valid):
    root, seeds = valid
    folder, trees = root / "same", []
    for number in NUMBERS[:8]:
        for _ in range(2):
            case = bad_inputs.make(number, folder, seeds)
            trees.append((case.words, case.note, bad_inputs.tree(folder)))
            bad_inputs.shutil.rmtree(folder)
    assert trees[::2] == trees[1::2]
