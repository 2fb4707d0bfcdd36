"""The batches of a sync step stay what they were, whatever becomes of the number of workers."""

import pytest

from tfleet.spec.job import JobSpec


def job(strategy="sync", workers=4, **fields):
    return JobSpec(strategy=strategy, workers=workers, **fields)


@pytest.mark.parametrize(
    ("now", "before", "batches"),
    [
        (job(), None, 4),
        (job(), job(workers=2), 2),
        (job(), job(workers=2, replicas_to_aggregate=3), 3),
        (job(replicas_to_aggregate=5), job(workers=2), 5),
        (job(), job("async", workers=2), 4),
        (job("async"), job(workers=2), 0),
        (job("average"), None, 0),
    ],
)
def test_batches_of_a_step(now, before, batches):
    assert now.pinned(before).replicas_to_aggregate == batches
    assert now.pinned(before).workers == 4
