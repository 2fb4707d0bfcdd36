"""helm test: asks the job for its status. Arguments: URL of ps 0's status ("": none), path of status.json.

Ends with 0 when the job goes on or went well, with 1 when it failed, or when nobody knows anything of it.
While ps 0 answers, its word counts. Once the job is over ps 0 is gone: then the run directory tells how it ended.
"""

import json
import sys
import time
import urllib.request
from pathlib import Path

url, path = sys.argv[1:]
status, why = None, "the job has no status port"
for attempt in range(30):
    try:
        if url:
            token = Path("/etc/tfleet/token/token").read_text().strip()
            request = urllib.request.Request(url, headers={"X-Tfleet-Token": token})
            status = json.load(urllib.request.urlopen(request, timeout=3))
            break
    except (OSError, ValueError) as error:
        why = f"ps 0 does not answer ({error})"
    # A job that goes on with an earlier one leaves the end of that in the file, until its ps 0 has started.
    if attempt >= 5 or not url:
        try:
            said = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            why = f"{why.partition(';')[0]}; {path} cannot be read ({error})"
        else:
            if said["phase"] in ("done", "stopped", "failed", "interrupted") or not url:
                status = said
                break
            why = f"{why.partition(';')[0]}; {path} says {said['phase']}"
    time.sleep(1)
if status is None:
    sys.exit(f"no status of the job: {why}")
step, reason = status.get("step", 0), status.get("reason")
print(f"phase {status['phase']}, step {step}" + (f": {reason}" if reason else ""))
sys.exit(status["phase"] == "failed")
