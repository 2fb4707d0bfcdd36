"""Refuses what the graph of a training call does behind Keras's back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfleet.spec.errors import WrongInput
from tfleet.worker.training_call import Roles

_RANDOM = """
RandomUniform RandomUniformInt RandomStandardNormal TruncatedNormal ParameterizedTruncatedNormal RandomGamma
RandomPoisson RandomPoissonV2 RandomShuffle Multinomial StatefulUniform StatefulUniformInt StatefulUniformFullInt
StatefulStandardNormalV2 StatefulTruncatedNormal StatefulRandomBinomial
"""
_RANDOM_KINDS = frozenset(_RANDOM.split())


def check_graph(name: str, graph: Any, roles: Roles) -> None:
    """Refuses variables that Keras does not know and that are trained or assigned, and random numbers of TensorFlow.

    Args:
        name: of the model, for messages.
        graph: `tf.Graph` of the traced gradient function.
        roles: all variables that are known.

    Raises:
        WrongInput: naming the variable or the operation.
    """
    unknown = [raw for raw in graph.variables if not roles.known(raw)]
    for raw in unknown:
        if raw.trainable:
            raise WrongInput(
                f"the model {name} uses the tf.Variable {raw.name}, which Keras does not know as the model's, so that "
                "it would not be trained; make it with self.add_weight(...) or keras.Variable(...)"
            )
    for kind, operation in _operations(graph):
        # Whatever Keras assigns stays in the scope, and never becomes an operation.
        if kind.startswith(("Assign", "ResourceScatter")):
            names = ", ".join(raw.name for raw in unknown) or operation
            raise WrongInput(
                f"the model {name} assigns a tf.Variable ({names}), which Keras does not know as the model's, so that "
                "it would not be carried; make it with self.add_weight(..., trainable=False)"
            )
        if kind in _RANDOM_KINDS:
            raise WrongInput(
                f"the model {name} draws random numbers with TensorFlow's own {kind} ({operation}), which are not the "
                "same when a batch is computed again; use keras.random with a keras.random.SeedGenerator of the layer"
            )


def _operations(graph: tf.Graph) -> Iterator[tuple[str, str]]:
    """Yields type and name of each operation, those within functions (loops, branches) too."""
    definition = graph.as_graph_def()
    for node in definition.node:
        yield node.op, node.name
    for function in definition.library.function:
        for node in function.node_def:
            yield node.op, node.name
