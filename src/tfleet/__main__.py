"""`python -m tfleet` is the command `tfleet`."""

from __future__ import annotations

from tfleet.cli.main import main

if __name__ == "__main__":
    main()
