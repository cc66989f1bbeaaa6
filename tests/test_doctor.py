"""The doctor names what is there and, for what is not, the command that fixes it."""

import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from fakd import doctor

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **environment}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_complete_environment_passes_and_missing_datasets_are_named(tmp_path):
    done = run("-m", "fakd.doctor", DETECTRON2_DATASETS=str(tmp_path))
    assert done.returncode == 0, done.stdout
    lines = {line[2:].split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert metadata.version("torch") in lines["torch"]
    assert "compiled operators" in lines["detectron2"]
    assert "first use" in lines["toyscenes_train"]
    assert str(tmp_path / "CamVid") in lines["camvid_val"]
    assert done.stdout.count("SegNet tutorial") == 1  # one remedy for the three splits
    assert not any(tmp_path.iterdir())  # looking draws nothing


def test_without_any_package_it_runs_and_says_how_to_fix_each():
    done = run("-S", "-I", str(ROOT / "tools" / "doctor.py"))
    assert done.returncode == 1, done.stderr
    assert f"{shlex.quote(sys.executable)} -m pip install 'torch>=2.11'" in done.stdout
    assert "install_detectron2.py" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_version_outside_the_requirement_is_to_fix():
    finding = doctor.check_requirement("torch<2")
    assert finding.needed
    assert metadata.version("torch") in finding.says
    assert finding.remedy.endswith("-m pip install 'torch<2'")
    assert doctor.check_requirement("torch>=2").remedy is None


def test_a_module_that_fails_on_import_is_to_fix(tmp_path, monkeypatch):
    (tmp_path / "module_with_a_broken_library.py").write_text("raise OSError('libGL.so.1')")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = doctor.check_import("module_with_a_broken_library", "reinstall it")
    assert "libGL.so.1" in finding.says
    assert finding.remedy == "reinstall it"
    assert finding.needed


def test_requirements_come_without_the_comments_of_setup_cfg():
    names = [doctor.check_requirement(requirement).subject for requirement in doctor.requirements()]
    assert "torch" in names
    assert all(name.replace("-", "").isalnum() for name in names)
