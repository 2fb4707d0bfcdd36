"""The short names of the job's fields: `evaluation.every_steps` is `eval_every` in Python and `--eval-every` as a flag.

Every leaf of JobSpec gets a name here, so that a new field is a flag and a keyword without another line. `task` and
`params` are left out: they are the argument TASK and the repeatable `--param`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tfleet.spec.errors import WrongField, WrongInput, nearest
from tfleet.spec.job import JobSpec

SHORT = {
    "checkpoint.keep": "keep",
    "evaluation.every_steps": "eval_every",
    "evaluation.evaluator": "evaluator",
    "evaluation.keep_best": "keep_best",
    "evaluation.stop_metric": "stop_metric",
    "evaluation.stop_patience": "stop_patience",
    "evaluation.stop_min_delta": "stop_min_delta",
    "summary.every_steps": "summary_every",
}
"""Names that are shorter than the rule, which is section and field joined by an underscore."""


@dataclass(frozen=True)
class Name:
    """One leaf field of JobSpec and what people call it.

    Attributes:
        keyword: its name in Python, such as `eval_every`.
        path: where it is in the job file, such as `("evaluation", "every_steps")`.
        field: pydantic's description of it: type, default, help.
    """

    keyword: str
    path: tuple[str, ...]
    field: FieldInfo

    @property
    def flag(self) -> str:
        """Its name on the command line, such as `--eval-every`."""
        return "--" + self.keyword.replace("_", "-")

    @property
    def dotted(self) -> str:
        """Its name in the job file and in the messages of JobSpec, such as `evaluation.every_steps`."""
        return ".".join(self.path)


@cache
def names() -> dict[str, Name]:
    """Returns every name by its keyword, in the order of the job file."""
    leaves = (name for name in _leaves(JobSpec, ()) if name.dotted not in ("task", "params"))
    return {name.keyword: name for name in leaves}


def nest(given: dict[str, Any]) -> dict[str, Any]:
    """Turns keywords and their values into the nested values that `JobSpec.parse` takes.

    Raises:
        WrongInput: for a keyword that no field has, with the nearest.
    """
    known = names()
    values: dict[str, Any] = {}
    for keyword, value in given.items():
        if keyword not in known:
            raise WrongInput(f"unknown keyword {keyword}{nearest(keyword, known)}; allowed: {', '.join(known)}")
        *sections, leaf = known[keyword].path
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[leaf] = value
    return values


def parse(values: dict[str, Any], given: Iterable[str], spell: Callable[[Name], str]) -> JobSpec:
    """Builds the spec; a wrong value among those `given` is named as its user spelled it.

    Args:
        values: nested values of the job.
        given: keywords that came from flags or Python, not from a file.
        spell: how those are written: `Name.flag` or `Name.keyword`.

    Raises:
        WrongInput: the one sentence of `JobSpec.parse`.
    """
    try:
        return JobSpec.parse(values)
    except WrongField as error:
        for name in (names()[keyword] for keyword in given):
            if name.dotted == error.field:
                raise WrongInput(f"{spell(name)}: {error.problem}; change {spell(name)}") from None
        raise


def _leaves(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Name]:
    for key, field in model.model_fields.items():
        here = (*path, key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, here)
        else:
            yield Name(SHORT.get(".".join(here), "_".join(here)), here, field)
