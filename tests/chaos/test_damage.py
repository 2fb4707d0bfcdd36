"""The commits of a real small job: whatever byte is changed, wherever a file ends early, the one before is used."""

import random

import numpy as np
import pytest
from simulated_fleet import Fleet
from simulated_worker import Counting
from sizes import FLIPS, LONG, SEED, keep

from tfleet.checkpoint import names
from tfleet.optimizers import OptimizerSpec

SPEC = {"ps": 2, "workers": 2, "steps": 8, "checkpoint": {"every_seconds": 0, "every_steps": 4, "keep": 2}}
WAYS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF)
"""Bits of a byte that are changed."""


class Small(Counting):
    """A model of a few parameters with slots, state, and frozen values; the second ps holds nothing of it."""

    def __init__(self):
        super().__init__(items=12, batch=4, parameters=8, optimizer=OptimizerSpec("adam"))

    def gradient(self, parameters, epoch, batch):
        return np.full(self.parameters, 0.1 * (1 + batch), np.float32)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Returns the store of a job that is done, and its two commits."""
    folder = tmp_path_factory.mktemp("damage")
    with Fleet(folder, Small(), SEED, **SPEC) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.phase == "done"
        before, last = [fleet.store.get(number) for number in fleet.store.numbers()]
        assert (before.step, last.step) == (4, 8) or before.step < last.step
        return fleet.store, before, last


def files(store, manifest):
    return [store.directory / name for name in (names.manifest(manifest.key), *(f.name for f in manifest.files))]


def noticed(store, before, last, path):
    newest, refused = store.newest()
    assert newest == before
    assert len(refused) == 1
    assert refused[0].startswith(f"commit {last.number} is damaged: {path.name} in ")


def test_every_changed_byte_of_a_job_s_commit_is_noticed(job):
    store, before, last = job
    rng, flips, lengths = random.Random(SEED), 0, 0
    for path in files(store, last):
        data = path.read_bytes()
        places = range(len(data)) if FLIPS else sorted(rng.sample(range(len(data)), min(60, len(data))))
        for place in places:
            for bits in WAYS if FLIPS else [rng.choice(WAYS)]:
                changed = bytearray(data)
                changed[place] ^= bits
                path.write_bytes(changed)
                noticed(store, before, last, path)
                flips += 1
        for length in range(len(data)) if FLIPS else rng.sample(range(len(data)), min(60, len(data))):
            path.write_bytes(data[:length])
            noticed(store, before, last, path)
            lengths += 1
        path.write_bytes(data)
    assert store.newest() == (last, [])
    size = sum(path.stat().st_size for path in files(store, last))
    keep("damage", {"bytes": size, "changed": flips, "truncated": lengths, "noticed": flips + lengths})


def test_a_job_goes_on_from_the_commit_before_the_damaged_one(job, tmp_path):
    store, before, last = job
    rng = random.Random(SEED)
    for number, path in enumerate(files(store, last)):
        data = path.read_bytes()
        for again in range(8 if LONG else 1):
            changed = bytearray(data)
            changed[rng.randrange(len(data))] ^= rng.choice(WAYS)
            copy = tmp_path / f"{number}-{again}"
            (copy / "checkpoints").mkdir(parents=True)
            for source in store.directory.iterdir():
                (copy / "checkpoints" / source.name).write_bytes(changed if source == path else source.read_bytes())
            with Fleet(copy, Small(), number, resume=True, **{**SPEC, "ps": 1 + number % 3}) as fleet:
                assert any(note.startswith(f"commit {last.number} is damaged: ") for note in fleet.job.notes)
                fleet.start_all()
                fleet.run()
                assert f"goes on from commit {before.number} at step {before.step}" in fleet.job.notes
                assert (fleet.job.phase, fleet.job.step) == ("done", 8)


def test_a_job_whose_commits_are_all_damaged_is_refused_and_nothing_is_lost(job, tmp_path):
    store, before, last = job
    (tmp_path / "checkpoints").mkdir()
    for source in store.directory.iterdir():
        data = bytearray(source.read_bytes())
        if source in files(store, before) or source in files(store, last):
            data[len(data) // 2] ^= 1
        (tmp_path / "checkpoints" / source.name).write_bytes(data)
    there = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("commit-*")}
    with Fleet(tmp_path, Small(), resume=True, **SPEC) as fleet:
        fleet.start_all()
        fleet.run()
        assert fleet.job.ending.over["exit_code"] == 2
        assert "no commit of this run can be read" in fleet.job.ending.reason
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").glob("commit-*")} == there
