"""Entry point of a ps: `python -m tfleet.server --index I --run-dir RUN [--resume]`."""

from __future__ import annotations

import argparse
import sys
import time

from tfleet.spec.importing import quick_imports

with quick_imports():
    from tfleet.server.first import FirstPs
    from tfleet.server.other import OtherPs
    from tfleet.server.process import write_status
    from tfleet.spec.errors import TfleetError
    from tfleet.spec.leaving import leave
    from tfleet.spec.rundir import RunDir


def main() -> int:
    """Runs one ps and returns its exit code; a `TfleetError` becomes one sentence, in status.json too for ps 0."""
    parser = argparse.ArgumentParser(prog="tfleet.server")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    run = RunDir.at(arguments.run_dir)
    try:
        process = OtherPs(arguments.index, run) if arguments.index else FirstPs(run, arguments.resume)
        return process.run()
    except TfleetError as error:
        print(f"tfleet: {error}", file=sys.stderr, flush=True)
        if arguments.index == 0:
            code = int(error.exit_code)
            status = {"phase": "failed", "reason": str(error), "exit_code": code, "updated": time.time()}
            write_status(run, {**run.status(), **status})
        return error.exit_code


if __name__ == "__main__":
    leave(main())
