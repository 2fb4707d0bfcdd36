"""The section of docs/measurements.md on faults against the protocol, from what the tests of tests/chaos kept."""

from __future__ import annotations

from typing import Any

ROWS = {
    "commit_kills": (
        "SIGKILL of ps, real processes, in each of 9 phases of a commit (before, within and between the parts, before "
        "the state, within the manifest, before and after its rename, after the commit, while old ones are removed)",
        "{kills:,} kills",
        "each time the last commit loaded, with the bytes that its ledger says",
    ),
    "damage": (
        "A small job's commit: each byte changed (every bit, and all), each file ending early at every length",
        "{changed:,} changes, {truncated:,} lengths",
        "all noticed; the commit before was used",
    ),
    "frames_async": (
        "Damaged frames and handshakes, job in one process, async",
        "{frames:,} frames",
        "the honest worker went on and every partition was exact at {looks:,} looks; memory grew by {grown_mb:.0f} of "
        "{bound_mb:.0f} MiB allowed",
    ),
    "frames_sync": (
        "The same, sync",
        "{frames:,} frames",
        "exact at {looks:,} looks; memory grew by {grown_mb:.0f} of {bound_mb:.0f} MiB allowed",
    ),
    "attacks": (
        "Real ps, all at once: damaged frames, wrong handshakes, huge lengths, connections of a byte each 0.2 s",
        "{Damaged:,} frames, {Handshakes:,} handshakes, {Huge:,} huge, {Slow:,} slow",
        "the honest worker never waited more than {longest_gap_seconds:g} s; a ps grew by {grown_mb:.0f} of "
        "{bound_mb:.0f} MiB allowed",
    ),
    "silent": (
        "Real ps: connections that say nothing",
        "{connections:,} connections",
        "at most {most_open:,} descriptors of a ps open at once; it grew by {grown_mb:.1f} MiB; the honest worker "
        "never waited more than {longest_gap_seconds:g} s",
    ),
    "state_machine_wide": (
        "The protocol as a state machine against a plain reference",
        "{fleets:,} fleets, {rules:,} rules, {events:,} events",
        "all hold, through {removed:,} lost workers, {rollbacks:,} rollbacks, {commits:,} commits",
    ),
    "state_machine_deep": (
        "The same, long lives: up to {deepest:,} rules, {most_events:,} events in one",
        "{fleets:,} fleets, {rules:,} rules, {events:,} events",
        "all hold, through {removed:,} lost workers, {rollbacks:,} rollbacks, {commits:,} commits",
    ),
    "sync_simulated": (
        "Schedules against sync in simulation: the holder of the oldest batch killed or stopped, workers that join and "
        "leave, ps that die",
        "{schedules:,} schedules",
        "all end, within the bound of the undisturbed run; {copies:,} backup copies, {rollbacks:,} rollbacks",
    ),
    "sync_real": (
        "The same with real processes: workers killed, stopped, added",
        "{schedules:,} schedules",
        "all end, within the bound of the undisturbed run",
    ),
}


def protocol_section(result: dict[str, Any], origin: str) -> str:
    """Returns the section.

    Args:
        result: of the kind `chaos_protocol`.
        origin: the sentence on where and when it was measured.
    """
    rows = ""
    for name, texts in ROWS.items():
        figures = result["figures"].get(name)
        if figures is None:
            continue
        mebibytes = {f"{k}_mb": figures[f"{k}_kib"] / 1024 for k in ("grown", "bound") if f"{k}_kib" in figures}
        cells = [text.format(**figures, **mebibytes) for text in texts]
        rows += f"| {' | '.join(cells)} | {figures['date']}, seed {figures['seed']} |\n"
    return (
        "\n## Faults against the protocol\n\nWhat the tests of `tests/chaos` did to ps, commits, frames and schedules "
        "when they were asked for much (`CHAOS_LONG=1 CHAOS_RESULTS=1`); what they found wrong is mended, and has a "
        "test.\n\n"
        f"| what | how much | what came of it | when |\n| --- | --- | --- | --- |\n{rows}{origin}"
    )
