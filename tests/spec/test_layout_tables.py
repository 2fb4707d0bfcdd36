"""Sparse tables in a layout: no ps cuts a row, and the vector that travels is what lies between them."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfleet.spec.layout import Layout, Table, Variable, partition_bounds

LAYOUT = Layout(
    (
        Variable("a", (700,)),
        Variable("t", (300, 33)),
        Variable("b", (3, 5)),
        Variable("u", (900, 2)),
        Variable("c", ()),
    ),
    sparse=(1, 3),
)


def test_places_and_the_rest():
    assert LAYOUT.tables == (Table(700, 300, 33), Table(10615, 900, 2))
    assert [v.name for v in LAYOUT.dense.trainable] == ["a", "b", "c"]
    assert LAYOUT.dense.parameters == 716
    assert LAYOUT.dense.sparse == ()
    assert LAYOUT.dense.dense is LAYOUT.dense


@given(st.integers(1, 40))
@settings(deadline=None)
def test_every_parameter_has_one_ps_and_no_row_is_cut(ps):
    bounds, dense = LAYOUT.bounds(ps), LAYOUT.dense_bounds(ps)
    assert len(bounds) == len(dense) == ps
    for these, whole in ((bounds, LAYOUT.parameters), (dense, 716)):
        assert these[0][0] == 0
        assert these[-1][1] == whole
        assert all(a[1] == b[0] and b[0] <= b[1] for a, b in itertools.pairwise(these))
    in_tables = np.zeros(LAYOUT.parameters, bool)
    for table in LAYOUT.tables:
        in_tables[table.low : table.high] = True
        parts = [table.within(*b) for b in bounds]
        assert sum(part.rows for part in parts) == table.rows
        assert all((part.low - table.low) % table.width == 0 for part in parts if part.rows)
    for (low, high), (first, last) in zip(bounds, dense, strict=True):
        assert last - first == np.count_nonzero(~in_tables[low:high])


def test_without_tables_nothing_is_new():
    plain = Layout(LAYOUT.trainable)
    assert plain.dense is plain
    assert plain.bounds(3) == plain.dense_bounds(3) == partition_bounds(plain.parameters, 3)
    assert "sparse" not in plain.to_json()
    assert plain.fingerprint == LAYOUT.fingerprint
    assert plain.difference(LAYOUT) == "", "a job may go on with tables as rows from where it went on with vectors"


def test_json_keeps_the_tables():
    assert Layout.from_json(json.loads(json.dumps(LAYOUT.to_json()))) == LAYOUT


@pytest.mark.parametrize("sparse", [[0], [9], [-1], [3, 1], [1, 1]])
def test_positions_that_are_no_tables_are_refused(sparse):
    values = {**LAYOUT.to_json(), "sparse": sparse}
    with pytest.raises(ValueError, match="sparse"):
        Layout.from_json(values)
