"""values.yaml, its schema and the README name the same values; what is generated is current. Needs no helm."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tfleet"
SCRIPT = ROOT / "tools" / "write_chart.py"


@pytest.fixture(scope="module")
def writer():
    found = importlib.util.spec_from_file_location("write_chart", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["write_chart"] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture
def small(writer, tmp_path, monkeypatch):
    """A chart of three values, whose files a test may write anew."""
    (tmp_path / "schema").mkdir()
    base = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "job": {"description": "The job."},
            "name": {"type": "string"},
            "worker": {"$ref": "#/$defs/role"},
        },
        "$defs": {
            "role": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"number": {"type": "integer"}, "port": {"type": "integer", "description": "Its port."}},
            }
        },
    }
    values = (
        "# -- The job.\njob: {}\n# A line of its own.\n\n# -- Name | of it,\n# on two lines.\nname: x\n"
        "worker:\n  # -- How many.\n  number: 2\n"
    )
    (tmp_path / "schema" / "values.base.json").write_text(json.dumps(base), encoding="utf-8")
    (tmp_path / "values.yaml").write_text(values, encoding="utf-8")
    (tmp_path / "Chart.yaml").write_text(
        "name: small\ndescription: A chart.\nversion: 1.0.0\nappVersion: 1.0.0\nkubeVersion: '>=1.31'\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(writer, "CHART", tmp_path)
    return tmp_path


def test_the_generated_files_are_current():
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_values_schema_and_readme_name_the_same_values(writer):
    assert writer.problems() == []
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE))
    for value in writer.leaves(writer.values_tree()):
        above = {".".join(value.path[: length + 1]) for length in range(len(value.path))}
        assert above & told, f"{value.name} is not in the README"


def test_the_defaults_fit_the_schema(writer):
    schema = writer.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(defaults, schema)


# What Kubernetes itself describes is passed on to it: the chart names only what it needs of such an object.
PASSED_ON = {"/$defs/volumes/items", "/$defs/volumeMounts/items"}


def open_objects(schema, path=""):
    """Yields each object with named properties that takes others too."""
    if not isinstance(schema, dict):
        return
    named = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    if named and schema.get("additionalProperties") is not False:
        yield path
    for name, part in schema.items():
        yield from open_objects(part, f"{path}/{name}")


def test_no_object_of_the_schema_takes_unknown_keys(writer):
    assert set(open_objects(writer.schema())) == PASSED_ON
    assert writer.schema()["additionalProperties"] is False
    assert "global" in writer.schema()["properties"], "Helm gives it to every chart"


def test_the_job_part_is_the_job_specs(writer):
    from tfleet.spec.job import JobSpec

    job, spec = writer.schema()["properties"]["job"], JobSpec.json_schema()
    assert set(job["properties"]) == set(spec["properties"])
    for name in ("elastic", "checkpoint", "evaluation", "summary"):
        assert set(job["properties"][name]["properties"]) == set(spec["properties"][name]["properties"])
    assert "default" not in json.dumps(job["properties"]["elastic"]["properties"]["min"])


def test_values_that_templates_would_read_as_nothing_are_required(writer, small):
    values = small / "values.yaml"
    values.write_text(
        "# -- The job.\njob: {}\n# -- Name.\nname: x\n"
        "worker:\n  # -- How many.\n  number: 2\n  # -- Where.\n  port: 0\n",
        encoding="utf-8",
    )
    schema = writer.schema()
    assert schema["required"] == ["worker"], "a name may be empty"
    assert schema["$defs"]["role"]["required"] == ["number"], "0 is what a missing port is"


def test_the_readme_tells_defaults_types_and_comments(writer, small):
    readme = writer.readme()
    assert '| `name` | string | `"x"` | Name \\| of it, on two lines. |' in readme
    assert "| `worker.number` | integer | `2` | How many. |" in readme
    assert "| `worker.port` | integer | unset | Its port. |" in readme
    assert "| `job.batch_size` | integer | unset | " in readme
    assert writer.problems() == []


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  # -- How many.\n", "", "worker.number has no description"),
        ("  # -- How many.\n", "  # How many.\n", "worker.number has no description"),
        ("number: 2", "number: 2\n  # -- Another.\n  nmber: 3", "worker.nmber is in values.yaml but not in the schema"),
    ],
)
def test_a_value_that_one_of_them_does_not_know_is_named(writer, small, old, new, sentence):
    values = small / "values.yaml"
    values.write_text(values.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert [wrong for wrong in writer.problems() if wrong.startswith(sentence)]


def test_a_schema_property_without_a_word_anywhere_is_named(writer, small):
    path = small / "schema" / "values.base.json"
    base = json.loads(path.read_text(encoding="utf-8"))
    changed = copy.deepcopy(base)
    del changed["$defs"]["role"]["properties"]["port"]["description"]
    path.write_text(json.dumps(changed), encoding="utf-8")
    assert [wrong for wrong in writer.problems() if wrong.startswith("worker.port has no description")]


def test_check_fails_when_a_file_is_not_current(writer, small, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["write_chart.py"])
    writer.main()
    monkeypatch.setattr(sys, "argv", ["write_chart.py", "--check"])
    writer.main()
    (small / "README.md").write_text("old", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"README\.md"):
        writer.main()
