"""A few trials of the accuracy benchmark, which takes hours as a whole."""

import pytest

from bench.accuracy.cells import CELLS, Cell
from bench.accuracy.delays import DELAYS, DelayCell, run_delay_trial
from bench.accuracy.trials import OURS, run_trial


@pytest.mark.parametrize("number", range(2))
@pytest.mark.parametrize("cell", DELAYS, ids=lambda cell: cell.name)
def test_in_a_call_graph_the_slow_pod_alone_is_named(cell: DelayCell, number: int) -> None:
    result = run_delay_trial(cell, 1, number)
    assert (result.right, result.alarms) == (True, 0)


@pytest.mark.parametrize("cell", CELLS[:4], ids=lambda cell: cell.name)
def test_in_a_mesh_the_faults_alone_are_named(cell: Cell) -> None:
    result = run_trial(cell, 1, 0)
    assert result.found[OURS] + result.unseen == cell.faults
    assert (result.missed[OURS], result.wrong[OURS], result.alarms) == (0, 0, 0)
