"""Which files of a store are no longer needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from tfleet.checkpoint import names
from tfleet.checkpoint.manifest import Manifest
from tfleet.checkpoint.names import Key


def superfluous(
    listing: Iterable[str], sound: Callable[[Key], Manifest | None], keep: int, protect: Set[int], writing: Set[int]
) -> tuple[list[str], list[str]]:
    """Decides what to remove.

    The newest `keep` sound commits stay, and the protected ones. A commit that is not sound never counts as kept: while
    it is newer than a kept one it stays, for a person to look at. Files without a manifest stay while their commit may
    still be finished: when it is being written, or newer than the newest sound one.

    Args:
        listing: names in the store's folder.
        sound: returns the manifest of a commit that looks whole, else None.
        keep: how many commits to keep.
        protect: numbers of commits to keep whatever their age.
        writing: numbers of commits that are being written.

    Returns:
        Manifests, then other files; the first must be gone for good before the second are touched.
    """
    files: dict[Key, list[str]] = {}
    for name in sorted(listing):
        if key := names.key_of(name):
            files.setdefault(key, []).append(name)
    manifests: list[str] = []
    others: list[str] = []
    kept = 0
    for key in sorted(files, reverse=True):
        if key.number in writing:
            continue
        if names.manifest(key) not in files[key]:
            others += files[key] if kept else []
            continue
        manifest = sound(key)
        if manifest and (kept < keep or key.number in protect):
            kept += 1
            needed = {names.manifest(key), *(file.name for file in manifest.files)}
            others += [name for name in files[key] if name not in needed]
        elif kept >= keep and key.number not in protect:
            manifests.append(names.manifest(key))
            others += [name for name in files[key] if name != names.manifest(key)]
    return manifests, others
