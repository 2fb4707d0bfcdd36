"""Every module imports alone; what should be light leaves TensorFlow out."""

import pkgutil
import subprocess
import sys

import pytest

import tfleet

HEAVY = ("tfleet.worker", "tfleet.tasks.mnist", "tfleet.testing")
MODULES = sorted(m.name for m in pkgutil.walk_packages(tfleet.__path__, "tfleet.") if not m.name.endswith("__main__"))
NO_TENSORFLOW = "assert not {'tensorflow', 'keras'} & set(sys.modules), 'TensorFlow was imported'\n"


def python(code, **environment):
    import os

    env = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)


# In one process, each module starts with none of tfleet in sys.modules: a circular import shows as it would alone.
EACH_ALONE = """
import importlib, sys, traceback
failed = False
for name in {names!r}:
    for loaded in [m for m in sys.modules if m.split('.')[0] == 'tfleet']:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
        {check}
    except Exception:
        failed = True
        print(name, traceback.format_exc(limit=-3), file=sys.stderr)
sys.exit(failed)
"""


def light():
    return [name for name in MODULES if not name.startswith(HEAVY)]


@pytest.mark.processes
def test_light_modules_import_alone_and_without_tensorflow():
    assert len(light()) > 40
    done = python(EACH_ALONE.format(names=light(), check=NO_TENSORFLOW.strip()))
    assert done.returncode == 0, done.stderr


@pytest.mark.tf
@pytest.mark.processes
def test_heavy_modules_import_alone():
    heavy = [name for name in MODULES if name.startswith(HEAVY)]
    done = python(EACH_ALONE.format(names=heavy, check="pass"))
    assert done.returncode == 0, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    "code",
    [
        "import tfleet; tfleet.train, tfleet.Run, tfleet.JobSpec, tfleet.Task",
        "from tfleet.cli.main import run; assert run(['--help']) == 0",
        "from tfleet.cli.main import run; assert run(['train', 'mnist', '--dry-run']) == 0",
    ],
)
def test_the_command_line_leaves_tensorflow_out(code, tmp_path):
    done = python(f"import sys\n{code}\n{NO_TENSORFLOW}")
    assert done.returncode == 0, done.stderr


@pytest.mark.processes
def test_a_launcher_starts_replicas_without_numpy():
    run = "from tfleet.cli.main import run; assert run(['train', 'mnist', '--dry-run']) == 0"
    done = python(
        f"import sys\n{run}\nassert 'tfleet.backends.local' in sys.modules\nassert 'numpy' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_names_of_tasks_are_loaded_when_they_are_used():
    from tfleet import tasks

    assert all(getattr(tasks, name) is not None for name in tasks.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tasks.nonsense


def test_import_tfleet_loads_nothing_of_it():
    done = python("import sys, tfleet; print(*sorted(m for m in sys.modules if m.startswith('tfleet')))")
    assert done.stdout.split() == ["tfleet"]


def test_public_names_are_there():
    assert {*tfleet.__all__} <= {*dir(tfleet)}
    assert all(getattr(tfleet, name) is not None for name in tfleet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tfleet.nonsense
