"""Entry point of workers: `python -m tfleet.worker [--evaluator] --index I --run-dir RUN`."""

from __future__ import annotations

import argparse
import sys

from tfleet.spec.output import never_fail_to_print
from tfleet.spec.rundir import RunDir
from tfleet.worker.process import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tfleet.worker")
    parser.add_argument("--evaluator", action="store_true")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--run-dir", required=True)
    arguments = parser.parse_args()
    never_fail_to_print()
    sys.exit(main("evaluator" if arguments.evaluator else "worker", arguments.index, RunDir.at(arguments.run_dir)))
