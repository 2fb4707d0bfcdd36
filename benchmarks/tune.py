"""Tunes every peer for every size of the model: each writes a result file with its variants, the fastest first.

`steps.py` uses the fastest ones. Takes about a quarter of an hour a repeat on an idle machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from contestants import Missing, torch_python
from digits import write_digits
from measure import HERE, child_environment

PEERS = {
    "tf_graph_ps": ["--steps=1000"],
    "tf2_ps": ["--steps=800", "--steps-a-call=1"],
    "tf2_ps, 50 steps a call": ["--steps=1500", "--steps-a-call=50"],
    "torch_ddp": ["--steps=2500"],
}


def main() -> None:
    """Runs `--tune` of each peer."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=1)
    parse.add_argument("--hidden-units", type=int, action="append", default=[], help="default: 100 and 1000")
    parse.add_argument("--only", action="append", choices=sorted(PEERS), default=[])
    options = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="tfleet-bench-data-") as folder:
        data = write_digits(Path(folder) / "digits.npz")
        for units in options.hidden_units or (100, 1000):
            for name in options.only or PEERS:
                script = name.partition(",")[0]
                try:
                    python = torch_python() if script == "torch_ddp" else sys.executable
                except Missing as why:
                    print(f"{name} is not tuned: {why}", file=sys.stderr)
                    continue
                own = [f"--data={data}", f"--tune={options.repeats}", f"--hidden-units={units}", *PEERS[name]]
                command = [python, str(HERE / "peers" / f"{script}.py"), *own]
                subprocess.run(command, env=child_environment(), check=True)


if __name__ == "__main__":
    main()
