"""The worker's side of sparse tables: it asks every partition for the rows it has, and sends row gradients there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfleet.spec.arrays import Ids, Matrix
from tfleet.spec.layout import Layout
from tfleet.strategies.exchange import Peers, taken
from tfleet.wire.client import Channel
from tfleet.wire.frames import Kind
from tfleet.wire.rows import Rows, pack_rows


class RowExchange:
    """Rows of the tables of a layout, spread over partitions.

    Args:
        peers: the connections; nothing else may be under way on them while rows are fetched.
        layout: of the model.
        ps: number of partitions.
    """

    def __init__(self, peers: Peers, layout: Layout, ps: int) -> None:
        self._peers = peers
        # For each table the first row of each partition, and the end.
        self._cuts = []
        for table in layout.tables:
            lows = [(min(max(low, table.low), table.high) - table.low) // table.width for low, _ in layout.bounds(ps)]
            self._cuts.append(np.array([*lows, table.rows]))

    def fetch(self, touched: Sequence[Ids], into: Sequence[Matrix]) -> None:
        """Gets rows as they are now; blocks.

        Args:
            touched: for each table int64 ids, ascending, each once.
            into: for each table float32 [ids, width], which is filled.

        Raises:
            Rejoin: when this worker is out of the job.
            ConnectionLost: when a ps is gone.
        """
        asked = []
        for channel, parts, meta, ids in self._spread(touched, 0):
            channel.send(Kind.FETCH, meta, *ids)
            asked.append((channel, parts))
        for channel, parts in asked:
            views = [matrix[part] for matrix, part in zip(into, parts, strict=True) if part.stop > part.start]
            if len(views) == 1:
                taken(channel, views[0].data.cast("B"))
            else:
                _receive_several(channel, views)

    def send(self, sequence: int, touched: Sequence[Ids], gradients: Sequence[Matrix]) -> None:
        """Sends the row gradients of the push with this sequence, which must follow; blocks while they are sent."""
        for channel, parts, meta, ids in self._spread(touched, sequence):
            rows = [gradient[part].data for gradient, part in zip(gradients, parts, strict=True)]
            channel.send(Kind.ROWS, meta, *ids, *rows)

    def _spread(
        self, touched: Sequence[Ids], sequence: int
    ) -> list[tuple[Channel, list[slice], bytes, list[memoryview]]]:
        """Returns, for each partition that has some of the rows: which of them, the meta, and the ids as it counts."""
        spread = []
        at = [np.searchsorted(ids, cuts) for ids, cuts in zip(touched, self._cuts, strict=True)]
        for index, channel in enumerate((self._peers.first, *self._peers.others)):
            parts = [slice(int(places[index]), int(places[index + 1])) for places in at]
            counts = tuple(part.stop - part.start for part in parts)
            if any(counts):
                meta = pack_rows(Rows(self._peers.generation, self._peers.member, sequence, counts))
                ids = [(i[p] - cuts[index]).data for i, p, cuts in zip(touched, parts, self._cuts, strict=True)]
                spread.append((channel, parts, meta, ids))
        return spread


def _receive_several(channel: Channel, views: Sequence[Matrix]) -> None:
    memory = np.empty(sum(view.size for view in views), np.float32)
    taken(channel, memory.data.cast("B"))
    at = 0
    for view in views:
        view.reshape(-1)[:] = memory[at : at + view.size]
        at += view.size
