"""A partition with tables: in commits everything is in its place, and updates have the bits of one vector."""

import numpy as np
import pytest

from tfleet.optimizers import OptimizerSpec, build
from tfleet.server.partition import Partition
from tfleet.server.row_pushes import RowPushes, TouchedRows
from tfleet.spec.layout import Layout, Variable
from tfleet.wire.frames import ProtocolError
from tfleet.wire.rows import Rows, pack_rows, unpack_rows

LAYOUT = Layout(
    (Variable("a", (70,)), Variable("t", (60, 33)), Variable("b", (15,)), Variable("u", (90, 2))), sparse=(1, 3)
)


def partitions(spec, ps, sparse=True):
    layout = LAYOUT if sparse else Layout(LAYOUT.trainable)
    made = []
    for (low, high), (start, _) in zip(layout.bounds(ps), layout.dense_bounds(ps), strict=True):
        tables = [table.within(low, high) for table in layout.tables]
        made.append(Partition(low, high, build(spec), [], tables=tables, start=start))
    return made


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adagrad"])
@pytest.mark.parametrize("ps", [1, 2, 5])
def test_the_bits_of_a_partition_without_tables(name, ps):
    rng = np.random.default_rng(0)
    start = rng.normal(size=LAYOUT.parameters).astype(np.float32)
    (dense,), rows = partitions(OptimizerSpec(name), 1, sparse=False), partitions(OptimizerSpec(name), ps)
    for partition in (dense, *rows):
        partition.load(start[partition.low : partition.high], {}, 0)
    inside = np.zeros(LAYOUT.parameters, bool)
    for table in LAYOUT.tables:
        inside[table.low : table.high] = True
    for _ in range(30):
        gradient = np.where(inside, 0, rng.normal(size=LAYOUT.parameters)).astype(np.float32)
        touched = [np.sort(rng.choice(table.rows, 4, replace=False)) for table in LAYOUT.tables]
        for table, ids in zip(LAYOUT.tables, touched, strict=True):
            part = gradient[table.low : table.high].reshape(table.rows, table.width)
            part[ids] = rng.normal(size=(4, table.width))
        dense.apply(gradient, 0.1)
        for partition in rows:
            bounds = slice(partition.low, partition.high)
            local, gradients = [], []
            for table, ids in zip(LAYOUT.tables, touched, strict=True):
                here = table.within(partition.low, partition.high)
                first = (here.low - table.low) // table.width
                mine = ids[(ids >= first) & (ids < first + here.rows)]
                local.append(mine - first)
                gradients.append(gradient[table.low : table.high].reshape(table.rows, table.width)[mine])
            partition.stage(TouchedRows(local, gradients))
            partition.apply(gradient[bounds][~inside[bounds]], 0.1)
    expected, expected_slots, iteration = dense.copy()
    for partition in rows:
        own = slice(partition.low, partition.high)
        parameters, slots, iterations = partition.copy()
        partition.catch_up()(slots)
        assert iterations == iteration == 30
        assert parameters.tobytes() == expected[own].tobytes()
        assert {n: s.tobytes() for n, s in slots.items()} == {n: s[own].tobytes() for n, s in expected_slots.items()}
        again = partitions(OptimizerSpec(name), ps)[rows.index(partition)]
        again.load(parameters, slots, iterations)
        assert again.copy()[0].tobytes() == parameters.tobytes()


def rows_of(counts, ids, gradients, sequence=1, member=3):
    payload = b"".join(np.array(i, np.int64).tobytes() for i in ids) + b"".join(g.tobytes() for g in gradients)
    return Rows(1, member, sequence, counts), memoryview(payload)


def test_rows_wait_for_their_own_push():
    pushes, connection = RowPushes([(10, 2), (5, 3)]), object()
    ones = [np.ones((2, 2), np.float32), np.ones((1, 3), np.float32)]
    rows, payload = rows_of((2, 1), [[0, 9], [4]], ones)
    assert unpack_rows(pack_rows(rows)) == rows
    assert pushes.size(rows, gradients=True) == len(payload) == 3 * 8 + 4 * 7
    assert pushes.size(rows, gradients=False) == 3 * 8
    assert pushes.admit(connection, 3)
    pushes.came(rows, payload)
    touched = pushes.take(3, 1)
    assert [ids.tolist() for ids in touched.ids] == [[0, 9], [4]]
    assert [g.shape for g in touched.gradients] == [(2, 2), (1, 3)]
    assert pushes.take(3, 1) is None
    assert pushes.admit(connection, 3)
    pushes.came(rows, payload)
    assert pushes.take(3, 2) is None, "of another push"


def test_room_is_bounded_and_comes_back():
    pushes = RowPushes([(10, 2)])
    connections = [object() for _ in range(5)]
    assert [pushes.admit(c, i) for i, c in enumerate(connections)] == [True] * 4 + [False]
    assert not pushes.gone(connections[4])
    assert pushes.gone(connections[0])
    assert pushes.admit(connections[4], 4)
    pushes.forget(1)
    assert pushes.admit(connections[0], 0)
    with pytest.raises(ProtocolError, match="second push"):
        pushes.admit(connections[0], 0)


@pytest.mark.parametrize("counts", [(11,), (), (1, 1), (1 << 40,)])
def test_more_rows_than_there_are_are_refused_before_memory_is_taken(counts):
    with pytest.raises(ProtocolError, match="this partition holds"):
        RowPushes([(10, 2)]).size(Rows(1, 1, 1, counts), gradients=True)


@pytest.mark.parametrize("ids", [[1, 1], [3, 2], [-1, 2], [0, 10]])
def test_ids_that_do_not_ascend_within_the_table_are_refused(ids):
    rows, payload = rows_of((2,), [ids], [np.ones((2, 2), np.float32)])
    with pytest.raises(ProtocolError, match="do not ascend"):
        RowPushes([(10, 2)]).came(rows, payload)


def test_meta_of_another_length_is_refused():
    with pytest.raises(ProtocolError, match="17 bytes"):
        unpack_rows(bytes(17))
