"""The installer of detectron2: the prefix is undone, every file is checked, the result is a distribution."""

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "fakd" / "install_detectron2.py"
SOURCES = {
    "detectron2/__init__.py": b'__version__ = "0.6"\n',
    "detectron2/layers/__init__.py": b"from detectron2.layers import wrappers\nimport detectron2\n",
}
MANIFEST = {name: hashlib.sha256(content).hexdigest() for name, content in SOURCES.items()}


@pytest.fixture(scope="module")
def installer():
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_bundle(folder: Path, changes: dict[str, bytes | None] | None = None) -> Path:
    """A wheel like the bundle: detectron2 under a prefix, beside files that are none of our business."""
    contents = {
        f"LabGym/{name}": content.replace(b"detectron2.", b"LabGym.detectron2.").replace(
            b"import detectron2", b"import LabGym.detectron2"
        )
        for name, content in SOURCES.items()
    }
    contents |= {"LabGym/__init__.py": b"raise SystemExit\n", "LabGym/detectron2/model_zoo/a.yaml": b"A: 1\n"}
    contents |= {
        "labgym-3.1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: LabGym\nVersion: 3.1.2\n",
        "labgym-3.1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "labgym-3.1.2.dist-info/RECORD": b"",
    }
    contents |= changes or {}
    path = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def run_script(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", **environment}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_prefix_is_undone_and_nothing_else_is_taken(installer, tmp_path):
    assert installer.extract_package(write_bundle(tmp_path), MANIFEST) == SOURCES


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("detectron2/layers/__init__.py", b"import os\n", "differs from upstream"),
        ("detectron2/engine/extra.py", b"", "not in the manifest"),
        ("detectron2/__init__.py", None, "missing"),
    ],
)
def test_a_file_that_is_not_upstreams_is_refused_by_name(installer, tmp_path, name, content, complaint):
    bundle = write_bundle(tmp_path, {f"LabGym/{name}": content})
    with pytest.raises(installer.InstallError, match=f"{name} .*{complaint}"):
        installer.extract_package(bundle, MANIFEST)


def test_wheel_installs_as_the_distribution_detectron2(installer, tmp_path):
    wheel = installer.build_wheel(SOURCES, tmp_path)
    target = tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", f"--target={target}"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)

    (found,) = metadata.distributions(name="detectron2", path=[str(target)])
    assert found.version == "0.6+59d9fb1"
    assert "Apache-2.0" in found.metadata["License"]
    assert "59d9fb1" in found.metadata["Summary"]
    assert "iopath>=0.1.7,<0.1.10" in found.requires
    assert {name: (target / name).read_bytes() for name in SOURCES} == SOURCES
    listed = [file for file in found.files if str(file) in SOURCES]
    assert len(listed) == len(SOURCES)  # what pip uninstall goes by
    for file in listed:
        digest = hashlib.sha256(SOURCES[str(file)]).digest()
        assert file.hash.value == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_an_importable_detectron2_is_kept(tmp_path):
    done = run_script(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "already there" in done.stdout


@pytest.mark.parametrize(
    ("source", "complaint"),
    [('__version__ = "0.5"', "0.6 or newer is needed"), ("import no_such_module", "no_such_module")],
)
def test_an_unusable_detectron2_is_reported_with_the_remedy(tmp_path, source, complaint):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text(source)
    done = run_script(cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "pip uninstall -y detectron2" in done.stderr


def test_no_registry_is_a_clear_error(tmp_path):
    done = run_script("--from", "wheel", cwd=tmp_path)
    assert done.returncode == 1
    assert "registry reachable" in done.stderr
    assert "--from git" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_with_another_digest_is_refused(tmp_path):
    bundle = write_bundle(tmp_path)
    done = run_script("--from", "wheel", cwd=tmp_path, PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 1
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() in done.stderr
    assert "nothing was installed" in done.stderr


def test_installed_files_are_those_of_the_manifest(installer):
    if "+59d9fb1" not in metadata.version("detectron2"):
        pytest.skip("this detectron2 was not installed from the wheel")
    manifest = installer.read_manifest(installer.MANIFEST)
    assert len(manifest) == 214
    root = Path(importlib.util.find_spec("detectron2").origin).parents[1]
    installed = {str(path.relative_to(root)): path for path in (root / "detectron2").rglob("*.py")}
    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in installed.items()
    } == manifest
