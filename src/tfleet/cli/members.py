"""The table of a job's members, for the live display and `tfleet status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tfleet.api.progress import working
from tfleet.api.text import count, rate

STATES = {"working": "green", "joined": "yellow", "lost": "red", "done": "dim"}


def members_table(members: Sequence[Mapping[str, Any]], limit: int) -> Table:
    """Draws a line for each member: who, state, steps, speed.

    Args:
        members: as in a status.
        limit: how many get a line of their own. Who is in trouble comes first, so that a large job hides only
            those that are well; of these the number is shown.
    """
    ordered = sorted(members, key=lambda m: (m["state"] != "lost", m["role"] != "worker", m["role"], m["index"]))
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in ("left", "left", "right", "right"):
        table.add_column(justify="right" if column == "right" else "left", no_wrap=True)
    for member in ordered[:limit]:
        state = str(member["state"])
        style = STATES.get(state, "")
        worked = member["role"] == "worker"
        table.add_row(
            Text(f"● {member['role']} {member['index']}{_where(member)}", style=style),
            Text(state, style=style),
            f"{count(int(member.get('steps', 0)), 'step')}" if worked and state != "joined" else "",
            f"{rate(float(member.get('steps_per_second', 0.0)))}/s" if worked and state == "working" else "",
        )
    if len(ordered) > limit:
        here = len(working({"members": ordered}))
        table.add_row(Text(f"  and {len(ordered) - limit} more", style="dim"), Text(f"{here} workers", style="dim"))
    return table


def _where(member: Mapping[str, Any]) -> str:
    """Names the machine of a worker that joined by hand."""
    return f" on {member['host']}" if member.get("host") else ""
