"""The chart's values: what users give in files and by `--set`, and what a job adds to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec

SECRET_VALUES = {"accountbase64", "keybase64"}
"""Names of values that are never shown."""

HIDDEN = "(hidden)"


def given_values(files: Sequence[str], settings: Sequence[str]) -> dict[str, Any]:
    """Merges values files and `--set` settings, the later over the earlier; reads the files.

    Raises:
        WrongInput: when a file cannot be read or a setting is malformed.
    """
    values: dict[str, Any] = {}
    for path in files:
        values = merge(values, _read(path))
    for setting in settings:
        for pair in _split(setting, ","):
            _set(values, pair)
    return values


def job_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what values of the chart say about the job, as fields of JobSpec.

    Raises:
        WrongInput: when they say it twice, differently.
    """
    job = dict(_section(values, "job"))
    for field, section in (("workers", "worker"), ("ps", "ps")):
        number = _section(values, section).get("number")
        if number is None:
            continue
        if field in job and job[field] != number:
            raise WrongInput(f"the values say {section}.number={number} and job.{field}={job[field]}; give only one")
        job[field] = number
    deadline = values.get("deadline")
    if deadline is not None:
        job.setdefault("deadline", deadline)
    return job


def chart_values(
    spec: JobSpec, given: Mapping[str, Any], run_dir: str, resume: bool, task_file: tuple[str, str] | None
) -> dict[str, Any]:
    """Returns the whole values of a release: the user's, with the job in them.

    Only what differs from a default is written, so that the chart can tell what was asked for.

    Args:
        spec: the resolved job.
        given: the user's values; the spec was made from them and stands over them.
        run_dir: path of the run directory inside the volume; empty: the chart's default.
        resume: whether the job goes on from the newest commit of its run directory.
        task_file: name and content of a file of the user's that is shipped; None: none is.
    """
    values = {key: value for key, value in given.items() if key not in ("job", "deadline")}
    values["worker"] = {**_section(given, "worker"), "number": spec.workers}
    values["ps"] = {**_section(given, "ps"), "number": spec.ps}
    job = spec.pinned().model_dump(mode="json", exclude_defaults=True, exclude={"workers", "ps"})
    deadline = job.pop("deadline", None)
    if deadline:
        values["deadline"] = deadline
    values["job"] = job
    if run_dir:
        values["runDir"] = run_dir
    if resume:
        values["resume"] = True
    if task_file is not None:
        values["taskFile"] = {"name": task_file[0], "content": task_file[1]}
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `over`, mapping by mapping, as helm merges its files."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def hidden(values: Any) -> Any:
    """Returns values with every secret replaced, fit to be shown."""
    if isinstance(values, Mapping):
        return {k: HIDDEN if k in SECRET_VALUES and v else hidden(v) for k, v in values.items()}
    return [hidden(v) for v in values] if isinstance(values, list) else values


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise WrongInput(f"the value {name} is {section!r}, but it is a mapping, as in '--set {name}.number=2'")
    return section


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            values = yaml.safe_load(file)
    except OSError as error:
        raise WrongInput(f"the values file {path} cannot be read: {error.strerror}; give a file to --values") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise WrongInput(f"the values file {path} is not YAML: {detail}; correct the file") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise WrongInput(f"the values file {path} must hold a mapping, such as 'worker: {{number: 4}}'")
    return values


def _split(text: str, separator: str) -> list[str]:
    r"""Splits at a separator that is neither escaped by `\` nor inside braces."""
    parts, depth, escaped = [""], 0, False
    for letter in text:
        if letter == separator and not depth and not escaped:
            parts.append("")
            continue
        depth += {"{": 1, "}": -1}.get(letter, 0) if not escaped else 0
        parts[-1] += letter
        escaped = letter == "\\" and not escaped
    return parts


def _set(values: dict[str, Any], pair: str) -> None:
    """Puts one `a.b[0].c=value` into values, as `helm --set` would."""
    path, sign, text = pair.partition("=")
    keys = list(_keys(path))
    if not sign or not keys:
        raise WrongInput(f"--set {pair} is not NAME=VALUE; write it as in --set worker.limit.memory=4Gi")
    target: Any = values
    key: Any
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        if isinstance(key, int) != isinstance(target, list):
            raise WrongInput(f"--set {pair}: {path} means a list in one place and a mapping in another; correct it")
        if isinstance(target, list) and isinstance(key, int):
            target.extend([None] * (key + 1 - len(target)))
        if following is None:
            target[key] = _value(text)
            return
        inner: Any = target[key] if isinstance(target, list) or key in target else None
        if not isinstance(inner, dict | list):
            inner = target[key] = [] if isinstance(following, int) else {}
        target = inner


def _keys(path: str) -> Iterable[str | int]:
    for part in _split(path, "."):
        name, *indices = re.split(r"(?<!\\)\[(\d{1,3})\]", part)
        if name:
            yield name.replace("\\", "")
        yield from (int(index) for index in indices[::2])


def _value(text: str) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_value(part) for part in _split(text[1:-1], ",")] if text != "{}" else []
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    if re.fullmatch(r"-?(0|[1-9]\d*)", text):
        return int(text)
    return re.sub(r"\\(.)", r"\1", text)
