"""Workers that do what a test says, one frame at a time, to one partition at a time."""

from __future__ import annotations

from simulated_worker import Rejoined, Worker

from tfleet.wire.frames import Kind, Order, unpack_take


class _Any:
    """Is ready when one of some connections is."""

    def __init__(self, lines):
        self._lines = lines

    @property
    def ready(self):
        return any(line.ready for line in self._lines)


class Puppet(Worker):
    """Joins by itself; then it only takes answers. It has one push under way at a time, as every worker has."""

    def train(self, lines):
        """Is attached; takes what comes."""
        self.leases, self.unsent, self.last = [], [], []
        self.answers = [0] * len(lines)
        self.attached = True
        while True:
            for index, line in enumerate(lines):
                while line.ready:
                    if self._take(index, line) is Order.OVER:
                        return "over"
            yield _Any(lines)

    def _train(self, first, task):
        try:
            return (yield from self.train(self.lines))
        finally:
            self.attached = False

    def _take(self, index, line):
        frame = line.take()
        if frame.kind is Kind.ERROR:
            self._result(frame)
        take = unpack_take(frame.meta)
        if take.order is Order.REJOIN:
            raise Rejoined
        self.answers[index] -= 1
        if index == 0:
            self.leases += take.leases
            self.step = take.step
        return take.order

    @property
    def idle(self):
        """Whether nothing is under way."""
        return self.can_act and not self.unsent and not any(self.answers)

    @property
    def can_act(self):
        return getattr(self, "attached", False) and not self.ended

    def pull(self):
        """Asks everybody."""
        for index in range(len(self.lines)):
            self._send(index, Kind.PULL, self._meta())

    def begin(self, reference):
        """Makes a push of the oldest lease; nothing of it is sent yet."""
        lease, task = self.leases.pop(0), reference.task
        reference.pushes_now(self.generation, self.member)
        gradient = task.gradient(None, lease.epoch, lease.batch)
        self.sequence += 1
        meta = self._meta(1.0, 4, lease.epoch, lease.batch, lease.batches)
        parts = [gradient[low:high].tobytes() for low, high in self.bounds]
        parts[0] += b"\0" * (4 * task.state + 8)
        self.last = list(enumerate([(meta, part) for part in parts]))
        self.unsent = [*self.last[1:], self.last[0]]  # ps 0 last: what it acknowledges is on its way to the others

    def send_one(self, choice):
        """Sends one of the parts that are not sent yet, that for ps 0 last."""
        number = choice % max(1, len(self.unsent) - 1)
        index, (meta, part) = self.unsent.pop(number)
        self._send(index, Kind.PUSH, meta, part)

    def again(self, choice):
        """Sends a part of the last push again."""
        sent = [entry for entry in self.last if entry not in self.unsent]
        if sent:
            index, (meta, part) = sent[choice % len(sent)]
            self._send(index, Kind.PUSH, meta, part)

    def _send(self, index, kind, meta, payload=b""):
        self.answers[index] += 1
        self.lines[index].send(kind, meta, payload)
