"""Embeddings of which a step needs the touched rows only: which those are, and what a batch touches.

A table qualifies when its result cannot depend on rows that the batch does not name: it is the table of a
`keras.layers.Embedding` (not of a subclass) in a functional or sequential model, the layer's input is an input of the
model that feeds nothing else, and nothing else uses the table (seen in the traced graph, see `Tracer`). Then the model
gives the same bits with a compact table, the touched rows in ascending order, and with indices into that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from tfleet.data.source import Batch
from tfleet.optimizers import Optimizer
from tfleet.spec.arrays import Ids, Matrix
from tfleet.spec.errors import WrongInput
from tfleet.worker.optimizer_config import Clipping

Mode = Literal["exact", "lazy", "never"]
Fetch = Callable[[Sequence[Ids], Sequence[Matrix]], None]
"""Fills a matrix for each table with the rows of these ids; blocks."""

LEAST_ELEMENTS = 100_000
"""A table with fewer parameters (400 kB) travels whole: one exchange is quicker than asking for rows first."""
LEAST_RATIO = 4
"""A table travels whole unless it has so many times more rows than a full batch has indices."""

LARGE = 1_000_000
"""Parameters of a table that is worth a remark when it travels whole."""


@dataclass(frozen=True)
class Place:
    """One table.

    Attributes:
        position: among the trainable variables.
        name: of the layer.
        rows: of the table.
        width: of a row.
        leaf: which of the flat inputs of a batch has the indices.
        dtype: that the model casts this input to.
        masked: whether index 0 means that there is nothing, so that it must stay 0.
        most: rows that a full batch can touch, and one for index 0.
    """

    position: int
    name: str
    rows: int
    width: int
    leaf: int
    dtype: str
    masked: bool
    most: int


@dataclass(frozen=True)
class Tables:
    """The tables of a model that are sparse, ascending by position.

    Attributes:
        places: of the tables.
        reasons: for each other embedding of the model, by name, why it is not one.
        large: of those the ones that cost much for it, by name.
    """

    places: tuple[Place, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()
    large: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.places)

    def without(self, position: int, reason: str) -> Tables:
        """Returns the others, and why this one is none."""
        (gone,) = (p for p in self.places if p.position == position)
        rest = tuple(p for p in self.places if p.position != position)
        return Tables(rest, (*self.reasons, (gone.name, reason)), self.large | {gone.name})

    @property
    def remarks(self) -> list[str]:
        """What the user should be told: which large tables travel whole with every step, and why."""
        return [
            f"the embedding {name} travels whole with every step: {reason}"
            for name, reason in self.reasons
            if name in self.large
        ]

    def compact(self, batch: Batch) -> tuple[Batch, list[Ids], list[int]]:
        """Finds what a batch touches.

        Returns:
            The batch with int32 indices into compact tables; for each table the rows that it is made of, int64
            ascending, each once; and at which row of the compact table they begin.

        Raises:
            WrongInput: when an index is outside of its table.
        """
        leaves = keras.tree.flatten(batch.x)
        touched, firsts = [], []
        for place in self.places:
            given = np.asarray(leaves[place.leaf])
            ids, inverse = np.unique(_indices(given, place), return_inverse=True)
            # Whatever index 0 is in the batch, it is in the compact table, and nothing else is.
            first = int(place.masked and not (len(ids) and ids[0] == 0))
            leaves[place.leaf] = (inverse + first).reshape(given.shape).astype(np.int32)
            touched.append(ids)
            firsts.append(first)
        return batch._replace(x=keras.tree.pack_sequence_as(batch.x, leaves)), touched, firsts


def find_tables(
    model: keras.Model, example: Batch, optimizer: Optimizer, decay: Sequence[bool], clipping: Clipping, mode: Mode
) -> Tables:
    """Finds the tables of a built model of which only touched rows need to travel; a fixed rule, no timing.

    Args:
        model: compiled and built.
        example: a batch of the full size.
        optimizer: that the ps apply.
        decay: for each trainable variable whether weight decay applies to it, if there is any.
        clipping: of the gradient.
        mode: `exact`: only where dense updates would give the same bits; `lazy`: also where they would not and the
            optimizer can be lazy; `never`: none.
    """
    if mode == "never":
        return Tables()
    against = _against_optimizer(optimizer, clipping, mode)
    places, reasons, large = [], [], set()
    for layer in _embeddings(model):
        try:
            if against:
                raise _No(against)
            places.append(_place(model, layer, example, optimizer, decay))
        except _No as no:
            reasons.append((layer.name, str(no)))
            if layer.trainable and layer.input_dim * layer.output_dim >= LARGE:
                large.add(layer.name)
    return Tables(tuple(sorted(places, key=lambda p: p.position)), tuple(reasons), frozenset(large))


def check_lazy(model: keras.Model, optimizer: Optimizer, tables: Tables) -> None:
    """Refuses `sparse=lazy` where it would change nothing.

    Raises:
        WrongInput: says why.
    """
    if optimizer.at_rest() is not None:
        raise WrongInput(
            f"sparse=lazy does nothing with the optimizer {optimizer.keras_name} as it is set: it moves touched rows "
            "only and gives the bits of dense updates; leave sparse out"
        )
    if not tables:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in tables.reasons)
        raise WrongInput(
            f"sparse=lazy does nothing with the model {model.name}: "
            f"{reasons or 'it has no layer Embedding'}; leave sparse out, or change that"
        )


class _No(Exception):
    """Why an embedding is not sparse."""


def _against_optimizer(optimizer: Optimizer, clipping: Clipping, mode: Mode) -> str:
    if clipping.clipnorm or clipping.global_clipnorm:
        return "clipping by a norm needs the whole gradient"
    if optimizer.at_rest() is None and not (mode == "lazy" and optimizer.lazy):
        lazily = ", unless the job says sparse=lazy" if optimizer.lazy else ""
        return f"the optimizer {optimizer.keras_name} as it is set moves rows that a batch does not touch{lazily}"
    return ""


def _place(model: keras.Model, layer: Any, example: Batch, optimizer: Optimizer, decay: Sequence[bool]) -> Place:
    if type(layer) is not keras.layers.Embedding:
        raise _No(f"{type(layer).__name__} is a layer of its own, not keras.layers.Embedding")
    variables = layer.trainable_weights
    if len(variables) != 1 or len(layer.weights) != 1 or len(variables[0].shape) != 2:
        raise _No("its table does not train as one variable")
    (variable,) = variables
    if layer.embeddings_regularizer is not None:
        raise _No("its regularizer needs the whole table")
    position = next(i for i, v in enumerate(model.trainable_variables) if v is variable)
    if optimizer.spec.weight_decay and decay[position]:
        raise _No("weight decay moves rows that a batch does not touch")
    tensor = _input(model, layer)
    leaf = _leaf(model, tensor, example.x)
    rows, width = variable.shape
    count = np.asarray(keras.tree.flatten(example.x)[leaf]).size
    if rows * width < LEAST_ELEMENTS or rows < LEAST_RATIO * count:
        raise _No(f"a table of {rows} x {width} is small against the {count} indices of a batch")
    return Place(position, layer.name, rows, width, leaf, tensor.dtype, bool(layer.mask_zero), min(count, rows) + 1)


def _input(model: keras.Model, layer: Any) -> Any:
    """Returns the model's input that feeds the layer, and nothing else."""
    sequential = type(model) is keras.Sequential
    if not (sequential or (type(model).__name__ == "Functional" and type(model).__module__.startswith("keras."))):
        raise _No("only functional and Sequential models tell what an embedding is fed by")
    if sequential:
        if layer is not model.layers[0]:
            raise _No("it is not fed by an input of the model")
        tensor = model.inputs[0]
    else:
        nodes = layer._inbound_nodes
        tensor = nodes[0].input_tensors[0] if len(nodes) == 1 else None
        if not any(tensor is given for given in model.inputs):
            raise _No("it is not fed by an input of the model, once")
        uses = [n for op in model.operations for n in op._inbound_nodes if any(t is tensor for t in n.input_tensors)]
        others = [n for n in uses if n.operation is not layer and not (layer.mask_zero and _is_mask(n))]
        if others or any(tensor is output for output in model.outputs):
            raise _No("its input feeds something else too")
    if not (tensor.dtype.startswith(("int", "uint")) or (tensor.dtype == model.compute_dtype == "float32")):
        raise _No(f"its input is {tensor.dtype}, give it integers")
    return tensor


def _is_mask(node: Any) -> bool:
    """Tells whether a node asks where its input is not 0, as `mask_zero` does."""
    operation = type(node.operation)
    own = operation.__module__.startswith("keras.") and operation.__name__ == "NotEqual"
    return own and tuple(node.arguments.args[1:]) == (0,) and not node.arguments.kwargs


def _leaf(model: keras.Model, tensor: Any, x: Any) -> int:
    """Returns which of the flat arrays of `x` goes to an input of the model, as Keras matches them."""
    given = keras.tree.flatten_with_path(x)
    if len(model.inputs) == 1 and len(given) == 1:
        return 0
    if isinstance(x, dict):
        named = keras.tree.flatten_with_path(model.input) if isinstance(model.input, dict) else ()
        path = next((p for p, t in named if t is tensor), (tensor.name,))
        found = [i for i, (p, _) in enumerate(given) if p == path]
        if len(found) == 1:
            return found[0]
    elif isinstance(x, list | tuple) and isinstance(model.input, list | tuple):
        order = [t is tensor for t in keras.tree.flatten(model.input)]
        if len(order) == len(given) == len(x):
            return order.index(True)
    raise _No("the data have another structure than the inputs of the model")


def _indices(given: np.ndarray[Any, Any], place: Place) -> Ids:
    """Returns indices as the layer understands them: int64 [n], negative ones counted from the end."""
    cast = given.astype(place.dtype, copy=False)
    if cast.dtype not in (np.int32, np.int64):
        with np.errstate(invalid="ignore"):
            cast = cast.astype(np.int32)
    ids = cast.reshape(-1).astype(np.int64)
    wrong = (ids < int(place.masked) - place.rows) | (ids >= place.rows)
    if wrong.any():
        raise WrongInput(
            f"index {ids[wrong][0]} is outside of the table of the layer {place.name}, which has {place.rows} rows"
        )
    return np.where(ids < 0, ids + place.rows, ids)


def _embeddings(model: Any) -> Iterator[Any]:
    """Yields every embedding in the model, however deep, each once."""
    seen: set[int] = set()
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Embedding) and id(layer) not in seen:
            seen.add(id(layer))
            yield layer
