"""A stand-in for a replica: obeys the lifeline and a file of orders, never imports more than it must.

Arguments: role index run_dir, then what it does: `hold` (until told to end by RUN/.tfleet/order, as ps 0 would be),
`exit:N`, `finish` (waits for status.json to say that the job is over), `stubborn` (hold, ignores SIGTERM and the
order), `child` (hold, with a child process).
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tfleet.spec.lifeline import end_at_once, watch_lifeline

role, index, run, act = sys.argv[1:5]
run = Path(run)
watch_lifeline(end_at_once)
print(f"{role} {index} runs {act}", flush=True)
order = run / ".tfleet" / "order"


def tell(**values):
    temporary = run / ".status"
    temporary.write_text(json.dumps(values))
    temporary.replace(run / "status.json")


if act == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if act == "child":
    grandchild = subprocess.Popen(["sleep", "1000"])
    (run / "grandchild").write_text(str(grandchild.pid))
if act.startswith("exit:"):
    print("a last word", flush=True)
    code = int(act[5:])
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)
(run / f"ready-{role}-{index}").touch()
while True:
    if order.exists() and act != "stubborn":
        if role == "ps" and index == "0":
            tell(**json.loads(order.read_text()))
            break
        # As in a real job, nobody ends before ps 0 has told the end: a slow ps 0 must not look like trouble.
        if (run / "status.json").exists():
            break
    if act == "finish" and (run / "status.json").exists():
        break
    time.sleep(0.01)
