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
    from tfleet.spec.errors import ExitCode, TfleetError, out_of_memory
    from tfleet.spec.leaving import leave
    from tfleet.spec.output import never_fail_to_print
    from tfleet.spec.rundir import RunDir


def main() -> int:
    """Runs one ps and returns its exit code; a `TfleetError` becomes one sentence, in status.json too for ps 0."""
    parser = argparse.ArgumentParser(prog="tfleet.server")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--run-dir", required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    never_fail_to_print()
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
    except MemoryError as error:
        # Only this ps has failed: it is started again within its budget, and what it held is in the last commit.
        advice = "give more ps, or more memory"
        print(f"tfleet: {out_of_memory(f'ps {arguments.index}', error, advice)}", file=sys.stderr, flush=True)
        return ExitCode.FAILED


if __name__ == "__main__":
    leave(main())
