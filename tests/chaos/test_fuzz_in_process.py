"""Very many damaged frames and handshakes against the ps of a job in this process: the job goes on as if alone."""

import resource

import pytest
from fuzzed_fleet import FuzzedFleet
from sizes import FRAMES, SEED, keep

EVERY = 500
"""Frames between two looks at the honest worker."""
MEMORY = 64 << 10
"""KiB by which this process may have grown at its peak: a few frames of the largest meta."""


@pytest.mark.parametrize("strategy", ["async", "sync"])
def test_damaged_frames_and_handshakes_hurt_nobody_else(tmp_path, strategy):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames = looks = 0
    with FuzzedFleet(tmp_path, SEED, strategy=strategy) as fleet:
        while frames < FRAMES // 2:
            began = frames
            while frames < began + EVERY:
                frames += fleet.shake() if fleet.rng.random() < 0.1 else fleet.attack()
            fleet.loop.advance(1.0)
            fleet.check()
            looks += 1
        assert fleet.server.unproven <= 256
        assert fleet.honest.member == 1  # it never had to join again
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < MEMORY
    keep(f"frames_{strategy}", {"frames": frames, "looks": looks, "grown_kib": grown, "bound_kib": MEMORY})
