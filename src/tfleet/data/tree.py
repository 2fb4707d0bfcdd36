"""Nested inputs and targets: walking, checking, stacking them. A leaf is an array; None stands for nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfleet.data.source import Tree
from tfleet.spec.errors import WrongInput

Array = NDArray[Any]

PARTS = ("x", "y", "sample_weight")
"""Names of what a batch is made of, for messages."""


def map_tree(function: Callable[[str, Any], Any], tree: Tree, name: str = "") -> Tree:
    """Returns a tree of the same structure with `function(name, leaf)` for each leaf, such as `x['words']`."""
    if isinstance(tree, dict):
        return {key: map_tree(function, value, f"{name}[{key!r}]") for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        values = [map_tree(function, value, f"{name}[{i}]") for i, value in enumerate(tree)]
        return values if isinstance(tree, list) else tuple(values)
    return None if tree is None else function(name, tree)


def leaves(tree: Tree, name: str = "") -> dict[str, Any]:
    """Returns the leaves of a tree by their names, in order."""
    found: dict[str, Any] = {}
    map_tree(found.__setitem__, tree, name)
    return found


def unpack(value: Any, what: str) -> tuple[Tree, Tree, Tree]:
    """Splits (x,), (x, y) or (x, y, sample_weight).

    Args:
        value: what a user's data, item or parse function gave.
        what: whose it is, for the message.

    Raises:
        WrongInput: when it is not a tuple of one to three, or x is None.
    """
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        given = f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"
        raise WrongInput(f"{what} is {given}, but (x,), (x, y) or (x, y, sample_weight) is needed; give such a tuple")
    x, y, weight = (*value, None, None)[:3]
    if not leaves(x):
        raise WrongInput(f"{what} has no inputs: its x holds no array; give (x,), (x, y) or (x, y, sample_weight)")
    return x, y, weight


def convert(value: Any, what: str, leaf: Callable[[str, Any], Array]) -> tuple[Tree, Tree, Tree]:
    """Splits as `unpack` does, and converts every leaf by `leaf(name, value)`, such as `x['words'] of train`."""
    parts = unpack(value, what)
    x, y, weight = (
        map_tree(lambda name, v: leaf(f"{name} of {what}", v), part, own)
        for own, part in zip(PARTS, parts, strict=True)
    )
    return x, y, weight


def numbers(name: str, leaf: Any) -> Array:
    """Returns a leaf as an array of bool, integers, or float32.

    Any float becomes float32, as Keras does with the arrays given to fit (its floatx); nothing is copied needlessly.

    Raises:
        WrongInput: when it holds anything but numbers.
    """
    try:
        array = np.asarray(leaf)
    except ValueError:
        raise WrongInput(f"{name} is ragged: its rows have different lengths; pad them to one length") from None
    if array.dtype.kind not in "biuf":
        raise WrongInput(
            f"{name} has dtype {array.dtype}, but only bool, integers and floats can be trained on; encode it so"
        )
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def rows(parts: tuple[Tree, Tree, Tree], what: str) -> int:
    """Returns the number of samples that x, y and sample_weight agree on.

    Raises:
        WrongInput: when an array has no rows at all to index, or they do not agree.
    """
    arrays = {k: v for name, part in zip(PARTS, parts, strict=True) for k, v in leaves(part, name).items()}
    for name, array in arrays.items():
        if array.ndim == 0:
            raise WrongInput(f"{name} of {what} is a single number, but an array with a row for each sample is needed")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise WrongInput(f"the arrays of {what} have different numbers of samples: {told}; make them equal")
    return next(iter(lengths.values()))


def join(trees: Sequence[Tree], how: Callable[[list[Array]], Array], name: str, what: str) -> Tree:
    """Makes one tree of several of the same structure, leaf by leaf.

    Args:
        trees: at least one tree of arrays.
        how: `np.stack` for samples, `np.concatenate` for batches.
        name: which of `PARTS`, for the message.
        what: whose they are, for the message.

    Raises:
        WrongInput: when structures or shapes differ.
    """
    flat = [leaves(tree, name) for tree in trees]
    if any(f.keys() != flat[0].keys() for f in flat):
        other = next(f for f in flat if f.keys() != flat[0].keys())
        raise WrongInput(
            f"{what} gives different structures: {list(flat[0]) or None} and {list(other) or None}; give one structure"
        )

    def one(leaf: str, _: Any) -> Array:
        arrays = [f[leaf] for f in flat]
        try:
            return how(arrays)
        except ValueError:
            shapes = sorted({str(list(a.shape)) for a in arrays})
            raise WrongInput(
                f"{what} gives {leaf} of different shapes: {', '.join(shapes)}; give every sample one shape"
            ) from None

    return map_tree(one, trees[0], name)
