"""Entry point of workers: `python -m tfleet.worker [--evaluator] --index I --run-dir RUN`."""

from __future__ import annotations

import argparse

from tfleet.spec.importing import quick_imports

with quick_imports():
    from tfleet.spec.leaving import leave
    from tfleet.spec.rundir import RunDir
    from tfleet.worker.process import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tfleet.worker")
    parser.add_argument("--evaluator", action="store_true")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--run-dir", required=True)
    arguments = parser.parse_args()
    leave(main("evaluator" if arguments.evaluator else "worker", arguments.index, RunDir.at(arguments.run_dir)))
