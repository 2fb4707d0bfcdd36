"""The network between two machines is cut, slow, or loses packets: the job ends by itself, every sample counts once.

The machines are network namespaces, the replicas are those of pods. The workers have NumPy's model (`light_model`), one
job has TensorFlow's. The cut of 30 s, and one packet of ten lost, come with CHAOS_LONG=1, as `make chaos` sets it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from chaos_schedule import BATCHES, Shape
from chaos_verdict import Verdict
from network_job import NetworkJob
from network_nodes import why_not

pytestmark = pytest.mark.processes

LONG = os.environ.get("CHAOS_LONG", "0") != "0"
LIMIT = 300.0


@dataclass(frozen=True)
class Trouble:
    """What happens to one job.

    Attributes:
        shape: of the job.
        cut: seconds for which the cable is pulled.
        loss: share of the packets that are lost, from the start on.
        delay: milliseconds that the way to ps 0 takes longer.
        rollbacks: at least so many; without a cut that is longer than `peer_timeout` there is none.
    """

    shape: Shape
    cut: float = 0.0
    loss: float = 0.0
    delay: float = 0.0
    rollbacks: int = 0


def shape(**values: object) -> Shape:
    return Shape(**{"tcp": True, "epochs": 2, "step_ms": 5.0, "peer_timeout": 20.0, **values})  # type: ignore[arg-type]


SHORT = {
    "cut for 2 s": Trouble(shape(), cut=2.0),
    "cut for 2 s, TensorFlow": Trouble(shape(worker="tensorflow"), cut=2.0),
    "cut for 2 s, sync": Trouble(shape(strategy="sync"), cut=2.0),
    "cut for longer than peers are waited for": Trouble(shape(peer_timeout=3.0), cut=8.0, rollbacks=1),
    "1 % of packets lost": Trouble(shape(epochs=1), loss=0.01),
    "20 ms each way": Trouble(shape(epochs=1), delay=20.0),
}
LONGER = {
    "cut for 30 s": Trouble(shape(), cut=30.0, rollbacks=1),
    "cut for 30 s, sync": Trouble(shape(strategy="sync"), cut=30.0, rollbacks=1),
    "cut for 30 s, and waited for": Trouble(shape(peer_timeout=120.0), cut=30.0),
    "10 % of packets lost": Trouble(shape(epochs=1, peer_timeout=60.0), loss=0.1),
    "200 ms each way": Trouble(shape(epochs=1), delay=200.0),
}
TROUBLES = {**SHORT, **(LONGER if LONG else {})}


@dataclass(frozen=True)
class Result:
    verdict: Verdict
    lost: int


def play(trouble: Trouble, folder: Path) -> Result:
    """Runs one job to its end."""
    job = NetworkJob(folder, trouble.shape, LIMIT, trouble.delay)
    try:
        if trouble.loss:
            job.network.lose(trouble.loss)
        job.start()
        if trouble.cut:
            job.wait_for_step(BATCHES // 2)
            job.network.down()
            time.sleep(trouble.cut)
            job.network.up()
        verdict = job.wait()
        return Result(verdict, job.network.lost())
    finally:
        job.close()


@cache
def reason() -> str:
    return why_not()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Result]]:
    """Plays them all, several at once: most of their time they wait for the network."""
    if reason():
        pytest.skip(reason())
    folder = tmp_path_factory.mktemp("network")
    with ThreadPoolExecutor(3) as pool:
        answers: dict[str, Future[Result]] = {
            name: pool.submit(play, trouble, folder / str(number))
            for number, (name, trouble) in enumerate(TROUBLES.items())
        }
        yield lambda name: answers[name].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.tf
@pytest.mark.parametrize("name", TROUBLES)
def test_the_job_ends_and_every_sample_counts_once(played: Callable[[str], Result], name: str) -> None:
    trouble, result = TROUBLES[name], played(name)
    assert not result.verdict.faults, "\n".join(result.verdict.faults)
    assert result.verdict.rollbacks >= trouble.rollbacks
    if not trouble.rollbacks and trouble.cut < trouble.shape.peer_timeout:
        assert result.verdict.rollbacks == 0, "nobody was silent for too long"
    assert (result.lost > 0) is (trouble.loss > 0)
