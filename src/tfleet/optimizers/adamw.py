"""AdamW."""

from __future__ import annotations

from tfleet.optimizers.adam import Adam


class AdamW(Adam):
    """Keras's `AdamW`: Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.

    It is Adam with decoupled weight decay, which every optimizer here can have: only the default in Keras differs.
    """

    name = "adamw"
    keras_name = "AdamW"
