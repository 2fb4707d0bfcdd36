"""Sparse tables: which embeddings are, and that their compact gradient has the bits of the dense one."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from keras import layers

from tfleet.data.source import Batch
from tfleet.optimizers import build as build_optimizer
from tfleet.spec.errors import WrongInput
from tfleet.worker import sparse
from tfleet.worker.gradient import GradientFunction
from tfleet.worker.optimizer_config import describe
from tfleet.worker.sparse import Tables, check_lazy, find_tables
from tfleet.worker.training_call import build

pytestmark = pytest.mark.tf

N, LENGTH, ROWS, WIDTH = 6, 4, 50, 3


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    monkeypatch.setattr(sparse, "LEAST_ELEMENTS", 1)
    monkeypatch.setattr(sparse, "LEAST_RATIO", 1)
    yield
    keras.config.set_dtype_policy("float32")


def ids(n=N, length=LENGTH, low=0, seed=0):
    return np.random.default_rng(seed).integers(low, ROWS, (n, length))


def targets(n=N):
    return np.random.default_rng(9).normal(size=(n, 2)).astype(np.float32)


def batch_of(x, n=N):
    return Batch(x, targets(n), None, n)


def compiled(model, optimizer="sgd", loss="mse", **more):
    model.compile(optimizer, loss, **more)
    return model


def tail(embedded):
    return layers.Dense(2)(layers.Flatten()(embedded))


def sequential(dtype="int32", optimizer="sgd", **options):
    stack = [keras.Input((LENGTH,), dtype=dtype), layers.Embedding(ROWS, WIDTH, **options), layers.Flatten()]
    return compiled(keras.Sequential([*stack, layers.Dense(2)]), optimizer)


def masked():
    given = keras.Input((LENGTH,), dtype="int32")
    return compiled(
        keras.Model(given, layers.Dense(2)(layers.GRU(3)(layers.Embedding(ROWS, WIDTH, mask_zero=True)(given))))
    )


def two_tables(dicts):
    a, b = keras.Input((LENGTH,), dtype="int64", name="a"), keras.Input((1,), dtype="int32", name="b")
    c = keras.Input((2,), name="c")
    first, second = layers.Embedding(ROWS, WIDTH, name="first")(a), layers.Embedding(2 * ROWS, 1, name="second")(b)
    joined = layers.Concatenate()([layers.Flatten()(first), c, layers.Flatten()(second)])
    inputs = {"z": a, "b": b, "c": c} if dicts else [a, c, b]
    return compiled(keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization()(layers.Dropout(0.3)(joined)))))


def late_build():
    return compiled(keras.Sequential([layers.Embedding(ROWS, WIDTH), layers.Flatten(), layers.Dense(2)]))


def bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    return sequential()


C = np.random.default_rng(1).normal(size=(N, 2)).astype(np.float32)
SPARSE = {
    "sequential": (sequential, batch_of(ids())),
    "repeated": (sequential, batch_of(np.full((N, LENGTH), 7))),
    "float input": (lambda: sequential("float32"), batch_of(ids())),
    "float data": (sequential, batch_of(ids().astype(np.float64) + 0.5)),
    "small integers": (sequential, batch_of(ids().astype(np.uint8))),
    "negative": (sequential, batch_of(ids(low=-ROWS))),
    "masked": (masked, batch_of(ids() * np.array([1, 1, 0, 1]))),
    "masked without zero": (masked, batch_of(ids(low=1))),
    "list": (lambda: two_tables(False), batch_of([ids(), C, ids(length=1) * 2])),
    "dict": (lambda: two_tables(True), batch_of({"z": ids(), "c": C, "b": ids(length=1) * 2})),
    "by name": (lambda: two_tables(False), batch_of({"a": ids(), "c": C, "b": ids(length=1) * 2})),
    "unbuilt": (late_build, batch_of(ids())),
    "bfloat16": (bfloat16, batch_of(ids())),
    "clipped by value": (lambda: sequential(optimizer=keras.optimizers.SGD(clipvalue=1e-3)), batch_of(ids())),
}


def tables_of(model, batch, mode="exact"):
    build(model, batch)
    described = describe(model)
    optimizer = build_optimizer(described.spec)
    return find_tables(model, batch, optimizer, described.decay, described.clipping, mode), described


def functions(model, batch, xla="never", mode="exact"):
    tables, described = tables_of(model, batch, mode)
    options = {"seed": 0, "xla": xla, "clipping": described.clipping, "decay": described.decay}
    return GradientFunction(model, batch, **options), GradientFunction(model, batch, tables=tables, **options)


def split(layout, vector):
    """Returns the part of a whole vector that is not sparse, and the tables."""
    inside = np.zeros(len(vector), bool)
    for table in layout.tables:
        inside[table.low : table.high] = True
    return vector[~inside], [vector[t.low : t.high].reshape(t.rows, t.width) for t in layout.tables]


def fetch_from(tables):
    def fetch(touched, into):
        for table, rows, matrix in zip(tables, touched, into, strict=True):
            matrix[:] = table[rows]

    return fetch


def assert_same_bits(dense, compact, batch, parameters, index=0):
    state = dense.initial()[1]
    whole = dense(parameters, state, batch, 0, index)
    rest, tables = split(compact.layout, parameters)
    step = compact(rest, state, batch, 0, index, fetch_from(tables))
    gradient, of_tables = split(compact.layout, whole.gradient)
    assert np.array_equal(gradient, step.gradient)
    assert step.loss == whole.loss
    assert step.finite
    assert np.array_equal(step.state, whole.state)
    assert np.array_equal(step.metrics, whole.metrics)
    assert len(step.rows) == len(step.touched) == len(of_tables) > 0
    for table, rows, gradients in zip(of_tables, step.touched, step.rows, strict=True):
        assert np.array_equal(table[rows].view(np.uint32), gradients.view(np.uint32))
        assert not np.delete(table, rows, 0).any()
        assert np.all(np.diff(rows) > 0)
        assert gradients.any()


@pytest.mark.parametrize("xla", ["never", "always"])
@pytest.mark.parametrize("name", SPARSE)
def test_compact_gradient_has_the_bits_of_the_dense_one(name, xla):
    make, batch = SPARSE[name]
    dense, compact = functions(make(), batch, xla)
    assert compact.tables.reasons == ()
    assert compact.layout.fingerprint == dense.layout.fingerprint
    parameters = dense.initial()[0]
    for index in range(3):
        assert_same_bits(dense, compact, batch, parameters, index)
        parameters = parameters + np.random.default_rng(index).normal(size=len(parameters)).astype(np.float32) * 0.1


@pytest.mark.parametrize("xla", ["never", "always"])
def test_batches_of_other_sizes(xla):
    dense, compact = functions(sequential(), batch_of(ids()), xla)
    parameters = dense.initial()[0]
    for n, seed in ((N, 1), (2, 2), (N, 3), (1, 4), (4, 5)):
        assert_same_bits(dense, compact, batch_of(ids(n, seed=seed), n), parameters)


def test_longer_sequences_than_the_first_touch_more_rows():
    given = keras.Input((None,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(ROWS, WIDTH)(given))
    model = compiled(keras.Model(given, layers.Dense(2)(pooled)))
    dense, compact = functions(model, batch_of(ids()))
    for length in (LENGTH, 2, 40):
        assert_same_bits(dense, compact, batch_of(ids(length=length)), dense.initial()[0])


def test_rows_of_the_model_itself_where_nobody_fetches_and_seen_rows_go_back():
    model, batch = sequential(), batch_of(ids())
    _, compact = functions(model, batch)
    rest, (table,) = split(compact.layout, compact.initial()[0])
    state, frozen = compact.initial()[1:]
    own = compact(rest, state, batch, 0, 0)
    given = compact(rest, state, batch, 0, 0, fetch_from([table]))
    assert np.array_equal(own.rows[0], given.rows[0])
    compact(rest, state, batch, 0, 0, fetch_from([table + 1]))
    compact.assign_seen(rest * 2, state, frozen)
    after = compact.initial()[0]
    assert np.array_equal(split(compact.layout, after)[0], rest * 2)
    seen = split(compact.layout, after)[1][0]
    expected = table.copy()
    expected[own.touched[0]] += 1
    assert np.array_equal(seen, expected)


@pytest.mark.parametrize("xla", ["never", "always"])
@pytest.mark.parametrize("wrong", [ROWS, -ROWS - 1, 2**31 - 1])
def test_an_index_outside_of_the_table_is_refused_by_name(xla, wrong):
    _, compact = functions(sequential(name="words"), batch_of(ids()), xla)
    x = ids()
    x[1, 2] = wrong
    rest, _ = split(compact.layout, compact.initial()[0])
    with pytest.raises(WrongInput, match=f"batch 3 of epoch 1 .*{wrong} .*table of the layer words.*{ROWS} rows"):
        compact(rest, compact.initial()[1], batch_of(x), 1, 3)


def test_nan_as_an_index_is_refused():
    _, compact = functions(sequential("float32"), batch_of(ids().astype(np.float32)))
    x = ids().astype(np.float32)
    x[0, 0] = np.nan
    with pytest.raises(WrongInput, match="outside of the table"):
        compact(split(compact.layout, compact.initial()[0])[0], compact.initial()[1], batch_of(x), 0, 0)


class Own(layers.Embedding):
    pass


class Tied(layers.Layer):
    def __init__(self, table):
        super().__init__()
        self.table = table

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.table.embeddings)


def shared_input():
    a = keras.Input((LENGTH,), dtype="int32")
    return compiled(
        keras.Model(a, tail(layers.Add()([layers.Embedding(ROWS, WIDTH)(a), layers.Embedding(ROWS, WIDTH)(a)])))
    )


def input_is_used():
    a = keras.Input((LENGTH,), dtype="int32")
    joined = layers.Concatenate()([layers.Flatten()(layers.Embedding(ROWS, WIDTH)(a)), keras.ops.cast(a, "float32")])
    return compiled(keras.Model(a, layers.Dense(2)(joined)))


def input_is_output():
    a = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(a, [tail(layers.Embedding(ROWS, WIDTH)(a)), a])
    return compiled(model, loss=["mse", None])


def used_twice():
    a, b = keras.Input((LENGTH,), dtype="int32"), keras.Input((LENGTH,), dtype="int32")
    table = layers.Embedding(ROWS, WIDTH)
    return compiled(keras.Model([a, b], tail(layers.Add()([table(a), table(b)]))))


def computed_input():
    a = keras.Input((LENGTH,), dtype="int32")
    return compiled(keras.Model(a, tail(layers.Embedding(ROWS, WIDTH)(a // 2))))


def nested():
    inner = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), layers.Embedding(ROWS, WIDTH)])
    return compiled(keras.Sequential([keras.Input((LENGTH,), dtype="int32"), inner, layers.Flatten(), layers.Dense(2)]))


def own_kind():
    a = keras.Input((LENGTH,), dtype="int32")
    return compiled(keras.Model(a, tail(Own(ROWS, WIDTH)(a))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [layers.Embedding(ROWS, WIDTH), layers.Flatten(), layers.Dense(2)]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def with_optimizer(optimizer):
    return lambda: sequential(optimizer=optimizer())


PLAIN = batch_of(ids())
DENSE = {
    "regularizer": (lambda: sequential(embeddings_regularizer="l2"), PLAIN, "regularizer"),
    "two tables by one input": (shared_input, PLAIN, "feeds something else"),
    "input used": (input_is_used, PLAIN, "feeds something else"),
    "input is an output": (input_is_output, Batch(ids(), [targets(), None], None, N), "feeds something else"),
    "used twice": (used_twice, batch_of([ids(), ids()]), "fed by an input"),
    "computed": (computed_input, PLAIN, "fed by an input"),
    "nested": (nested, PLAIN, "fed by an input"),
    "a subclass": (own_kind, PLAIN, "Own is a layer of its own"),
    "a subclassed model": (lambda: compiled(Subclassed()), PLAIN, "only functional and Sequential"),
    "frozen": (lambda: sequential(trainable=False), PLAIN, "does not train"),
    "clipnorm": (with_optimizer(lambda: keras.optimizers.SGD(clipnorm=1.0)), PLAIN, "norm"),
    "global_clipnorm": (with_optimizer(lambda: keras.optimizers.SGD(global_clipnorm=1.0)), PLAIN, "norm"),
    "adam": (with_optimizer(lambda: keras.optimizers.Adam()), PLAIN, "Adam .*sparse=lazy"),
    "momentum": (with_optimizer(lambda: keras.optimizers.SGD(momentum=0.9)), PLAIN, "SGD as it is set moves rows"),
    "centered": (with_optimizer(lambda: keras.optimizers.RMSprop(centered=True)), PLAIN, "RMSprop as it is set"),
    "decay": (with_optimizer(lambda: keras.optimizers.SGD(weight_decay=0.1)), PLAIN, "weight decay"),
}


@pytest.mark.parametrize("name", DENSE)
def test_all_others_are_dense_and_say_why(name):
    make, batch, reason = DENSE[name]
    tables, _ = tables_of(make(), batch)
    assert not tables
    assert tables.reasons
    import re

    assert all(re.search(reason, why) for _, why in tables.reasons)


def test_small_tables_travel_whole(monkeypatch):
    monkeypatch.setattr(sparse, "LEAST_ELEMENTS", ROWS * WIDTH + 1)
    assert "50 x 3 is small" in dict(tables_of(sequential(), PLAIN)[0].reasons).popitem()[1]
    monkeypatch.setattr(sparse, "LEAST_ELEMENTS", ROWS * WIDTH)
    assert tables_of(sequential(), PLAIN)[0]
    monkeypatch.setattr(sparse, "LEAST_RATIO", 3)
    assert not tables_of(sequential(), PLAIN)[0], "50 rows against 24 indices"


def test_a_large_table_that_travels_whole_is_worth_a_remark(monkeypatch):
    tables = tables_of(sequential(optimizer="adam", name="words"), PLAIN)[0]
    assert tables.remarks == []
    monkeypatch.setattr(sparse, "LARGE", ROWS * WIDTH)
    (remark,) = tables_of(sequential(optimizer="adam", name="words"), PLAIN)[0].remarks
    assert "embedding words travels whole" in remark
    assert "sparse=lazy" in remark
    assert tables_of(sequential(), PLAIN)[0].remarks == []


def test_never_and_a_table_without_decay():
    assert tables_of(sequential(), PLAIN, "never")[0] == Tables()
    optimizer = keras.optimizers.SGD(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    assert tables_of(sequential(optimizer=optimizer), PLAIN)[0]


@pytest.mark.parametrize("by", ["layer", "loss"])
def test_a_table_that_something_else_uses_is_dense_as_the_graph_tells(by):
    table = layers.Embedding(ROWS, WIDTH)
    a = keras.Input((LENGTH,), dtype="int32")
    hidden = layers.Dense(WIDTH)(layers.Flatten()(table(a)))
    if by == "layer":
        model = compiled(keras.Model(a, layers.Dense(2)(Tied(table)(hidden))))
    else:
        model = compiled(
            keras.Model(a, layers.Dense(2)(hidden)),
            loss=lambda y, p: keras.ops.mean((y - p) ** 2) + keras.ops.mean(table.embeddings**2),
        )
    assert tables_of(model, PLAIN)[0]
    dense, compact = functions(model, PLAIN)
    assert not compact.tables
    assert "more than its own lookup" in compact.tables.reasons[0][1]
    assert compact.layout == dense.layout
    values = dense.initial()
    assert np.array_equal(dense(*values[:2], PLAIN, 0, 0).gradient, compact(*values[:2], PLAIN, 0, 0).gradient)


def test_lazy_is_refused_where_it_would_change_nothing():
    for optimizer, model, reason in (
        ("sgd", sequential(), "optimizer SGD .*leave sparse out"),
        ("adam", shared_input(), "embedding.*: its input feeds something else"),
        ("adam", compiled(keras.Sequential([keras.Input((LENGTH,)), layers.Dense(2)])), "has no layer Embedding"),
        ("rmsprop", sequential(), "optimizer RMSprop"),
        (keras.optimizers.SGD(momentum=0.9), sequential(), "SGD as it is set moves rows"),
    ):
        compiled(model, optimizer)
        tables, described = tables_of(model, PLAIN, "lazy")
        with pytest.raises(WrongInput, match=reason):
            check_lazy(model, build_optimizer(described.spec), tables)
    model = sequential(optimizer="adam")
    tables, described = tables_of(model, PLAIN, "lazy")
    check_lazy(model, build_optimizer(described.spec), tables)
    dense, compact = functions(model, PLAIN, mode="lazy")
    assert_same_bits(dense, compact, PLAIN, dense.initial()[0])
