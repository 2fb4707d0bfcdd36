"""Entry point of workers: `python -m tfleet.worker [--evaluator] --index I --run-dir RUN`.

With `--join ADDRESS` instead of `--index` it is a guest: a worker that `tfleet join` has started.
"""

from __future__ import annotations

import argparse

from tfleet.spec.importing import quick_imports

with quick_imports():
    from tfleet.spec.leaving import leave
    from tfleet.spec.output import never_fail_to_print
    from tfleet.spec.rundir import RunDir
    from tfleet.worker.process import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tfleet.worker")
    parser.add_argument("--evaluator", action="store_true")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--index", type=int, default=-1)
    which.add_argument("--join", default="", metavar="ADDRESS")
    parser.add_argument("--run-dir", required=True)
    arguments = parser.parse_args()
    never_fail_to_print()
    role, run = "evaluator" if arguments.evaluator else "worker", RunDir.at(arguments.run_dir)
    leave(main(role, arguments.index, run, arguments.join))
