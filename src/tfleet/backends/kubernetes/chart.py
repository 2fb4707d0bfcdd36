"""Finds the chart: in a checkout of the repository, or inside an installed wheel."""

from __future__ import annotations

from pathlib import Path

from tfleet.spec.errors import JobFailed

PACKAGE = Path(__file__).resolve().parents[2]
"""Folder of the package `tfleet`; a wheel holds the charts inside it (pyproject.toml, force-include)."""


def chart_path(name: str = "tfleet", package: Path = PACKAGE) -> Path:
    """Returns the folder of a chart.

    Args:
        name: of the chart.
        package: folder of the package.

    Raises:
        JobFailed: when the installation is not whole.
    """
    for folder in (package.parents[1] / "charts" / name, package / "charts" / name):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise JobFailed(
        f"the Helm chart '{name}' is neither in {package / 'charts'} nor in {package.parents[1] / 'charts'}; "
        "install tfleet again: pip install --force-reinstall 'tfleet[kubernetes]'"
    )
