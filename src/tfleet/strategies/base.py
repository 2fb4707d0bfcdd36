"""What a strategy is: a ledger for the coordinator, a rule for each partition, an exchange for each worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from tfleet.optimizers import OptimizerSpec
from tfleet.spec.job import JobSpec
from tfleet.spec.layout import Layout
from tfleet.strategies.exchange import Exchange, Peers
from tfleet.strategies.ledger import Ledger
from tfleet.strategies.rule import Rule, Updatable


class Strategy(ABC):
    """How updates meet. A new strategy is one new file with a subclass; the registry finds it.

    Attributes:
        name: as in `JobSpec.strategy`.
        aggregates: whether a step applies several batches together. Then there is a moment between two steps in which
            no push is under way, workers get new parameters with a new step only, and a lost worker leaves nothing
            half done.
        waits: whether a worker may have to wait for another one.
        local: whether workers update their parameters by themselves between two pushes. Then a push brings parameters
            and the optimizer's slots instead of a gradient, and each answer with parameters brings the slots too.
        must_stay: fields of `JobSpec` of this strategy that a resumed job cannot change.
    """

    name: ClassVar[str]
    aggregates: ClassVar[bool]
    waits: ClassVar[bool] = True
    local: ClassVar[bool] = False
    must_stay: ClassVar[tuple[str, ...]] = ()

    def of(self, job: JobSpec) -> Strategy:
        """Returns this strategy as the job wants it, with its own fields of `JobSpec`."""
        return self

    def steps(self, batches: int, aggregate: int) -> int | None:
        """Returns the global steps to train where the strategy's own fields say so, else None.

        Args:
            batches: in an epoch.
            aggregate: batches in a full step.
        """
        return None

    @abstractmethod
    def ledger(self, batches: int, total: int, aggregate: int) -> Ledger:
        """Makes the coordinator's side.

        Args:
            batches: in an epoch.
            total: global steps to train; 0: until stopped.
            aggregate: batches in a full step.
        """

    @abstractmethod
    def rule(self, partition: Updatable, batch_size: int) -> Rule:
        """Makes a partition's side.

        Args:
            partition: that the rule updates.
            batch_size: samples in a full batch, which has weight 1.
        """

    @abstractmethod
    def exchange(self, peers: Peers, layout: Layout, spec: JobSpec, optimizer: OptimizerSpec) -> Exchange:
        """Makes a worker's side; blocks for a round trip to each ps of the same machine.

        Args:
            peers: its connections.
            layout: of the model.
            spec: of the job.
            optimizer: of the model, for workers that update by themselves.
        """
