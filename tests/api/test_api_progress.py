"""Recorded statuses become lines; time is an argument."""

from fake_jobs import done, member, status

from tfleet.api.progress import Events, Narrator, Printer, progress_line

COMMIT = {"number": 1, "step": 1000, "time": 1_700_000_000.0}
EVALUATION = {"step": 1000, "metrics": {"loss": 0.25, "accuracy": 0.92}}


def narrate(*timed):
    narrator = Narrator()
    return [line for now, values in timed for line in narrator.lines(values, now)]


def test_a_whole_job():
    lines = narrate(
        (0.0, {}),
        (0.2, status("starting", members=[])),
        (8.0, status("training", 0)),
        (9.0, status("training", 170)),
        (10.5, status("training", 430)),
        (12.0, status("training", 1000, last_commit=COMMIT, evaluation=EVALUATION)),
        (18.0, status("finalising", 2000, last_commit=COMMIT, evaluation=EVALUATION)),
        (19.0, done()),
    )
    assert lines == [
        "starting: the workers load TensorFlow and build the model",
        "training with 2 workers",
        progress_line(status("training", 430)),
        "commit 1 at step 1,000",
        "held out at step 1,000: accuracy 0.9200 · loss 0.2500",
        "step 2,000 reached: evaluating and exporting",
        "held out at step 2,000: accuracy 0.9310 · loss 0.2412",
    ]


def test_progress_line_says_it_all():
    assert progress_line(status("training", 1204)) == (
        "step 1,204/2,000 (60 %) · 172 steps/s · loss 0.2311 · accuracy 0.9312 · epoch 2 · 4.6 s left · 2 workers"
    )


def test_progress_line_of_a_job_until_stopped():
    values = status("training", 5000, steps=0, seconds_left=None, loss=None, metrics={})
    assert progress_line(values) == "step 5,000 · 172 steps/s · epoch 2 · 2 workers"


def test_lines_get_rarer_as_time_goes_by():
    def count_between(first, last):
        narrator = Narrator()
        lines = [(t, line) for t in range(0, 4000) for line in narrator.lines(status("training", t + 1), float(t))]
        return sum(first <= t < last for t, _ in lines)

    assert count_between(1, 41) == 20
    assert count_between(1000, 1300) == 10


def test_a_step_that_stands_still_is_told_once():
    lines = narrate(*((float(t), status("training", 7)) for t in range(60)))
    assert lines == ["training with 2 workers", progress_line(status("training", 7))]


def test_waiting_is_told_every_ten_seconds():
    nobody, one = status("starting", members=[]), status("starting", members=[member("worker", 0, "joined")])
    assert narrate((0.0, nobody), (5.0, nobody), (10.0, nobody), (15.0, one), (20.5, one)) == [
        "starting: the workers load TensorFlow and build the model",
        "still starting after 10 s: no worker has joined yet",
        "still starting after 20 s: 1 worker joined so far",
    ]


def test_waiting_is_told_before_the_first_status_too():
    assert narrate((0.0, {}), (11.0, {})) == ["still starting after 11 s: no worker has joined yet"]


def test_members_that_are_lost_come_back_or_join():
    events = Events()
    events.lines(status("training", 1))
    one, lost = member("worker", 0), member("worker", 1, "lost")
    assert events.lines(status("training", 2, members=[one, lost])) == [
        "worker 1 was lost; what it held goes to the others"
    ]
    assert events.lines(status("training", 3, members=[one, lost])) == []
    back, new = member("worker", 1, "joined"), member("worker", 2, "joined")
    assert events.lines(status("training", 4, members=[one, back, new])) == ["worker 1 is back", "worker 2 joined"]


def test_notes_are_told_once():
    events = Events()
    first = status("training", 5, notes=["fell back to commit 3: commit 4 is corrupt"])
    assert events.lines(first)[0] == "note: fell back to commit 3: commit 4 is corrupt"
    assert events.lines(first) == []


def test_printer_falls_silent_when_its_reader_has_gone():
    written = []

    def write(line):
        written.append(line)
        raise BrokenPipeError

    printer = Printer(write)
    printer.say("one")
    printer.say("two")
    assert written == ["one"]
