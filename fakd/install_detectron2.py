"""Install detectron2, which has no release on the package registry.

    fakd install-detectron2                keep an importable one, otherwise as --from wheel
    fakd install-detectron2 --from git     build upstream's newest commit, the official way
    fakd install-detectron2 --from wheel   no git, no compiler

``python tools/install_detectron2.py`` is the same in a checkout, before anything is installed.

The wheel way uses that the registry's LabGym 3.1.2 bundles detectron2's Python files of upstream commit
59d9fb1 (2024-01-25), changed by nothing but an import prefix. Those files alone are taken, the prefix is
undone, every file must then have upstream's own digest (detectron2-59d9fb1.sha256, beside this file), and
they are installed as a distribution named detectron2, without LabGym and without LabGym's requirements.
It has no compiled operators (semantic segmentation needs none) and no model-zoo yaml files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "detectron2-59d9fb1.sha256"
LICENSE = HERE / "LICENSE"  # detectron2 and fakd share the licence: the plain Apache-2.0 text
BUNDLE = "LabGym==3.1.2"
BUNDLE_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
UPSTREAM = "https://github.com/facebookresearch/detectron2"
VERSION = "0.6+59d9fb1"  # upstream's own number; the local part says which commit in `pip list`
# Requirements: those of upstream's setup.py, less black and dataclasses, which no import of detectron2 needs.
METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Meta's detectron2 at upstream commit 59d9fb1 (2024-01-25), Python files only
Home-page: {UPSTREAM}
License: Apache-2.0
Requires-Python: >=3.7
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore>=0.1.5,<0.1.6
Requires-Dist: iopath>=0.1.7,<0.1.10
Requires-Dist: omegaconf>=2.1,<2.4
Requires-Dist: hydra-core>=1.1
Requires-Dist: packaging

Upstream's own files, each checked against upstream's digest when fakd's install_detectron2.py
repacked them. There are no compiled operators and no model-zoo yaml files.
"""
WHEEL = """\
Wheel-Version: 1.0
Generator: install_detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""


class InstallError(Exception):
    """What went wrong, and what the user can do about it."""


def run_pip(*arguments: str, remedy: str) -> None:
    """Run this interpreter's pip; raise `InstallError` with the end of pip's own words and `remedy`."""
    if importlib.util.find_spec("pip") is None:
        raise InstallError(f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip --upgrade")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = "\n  ".join(done.stdout.strip().splitlines()[-20:])
        raise InstallError(f"`pip {' '.join(arguments)}` failed:\n  {said}\n{remedy}")


def find_installed() -> str | None:
    """Describe the detectron2 that Python would import, or return None; raise if it is too old or broken."""
    if importlib.util.find_spec("detectron2") is None:
        return None
    fix = f"remove it first: {sys.executable} -m pip uninstall -y detectron2"
    try:
        module = importlib.import_module("detectron2")
    except ImportError as error:
        raise InstallError(
            f"detectron2 is installed but does not import ({error}); install what it misses, or {fix}"
        ) from error
    version = getattr(module, "__version__", "0")
    if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < (0, 6):
        raise InstallError(f"detectron2 {version} is installed, 0.6 or newer is needed; {fix}")
    return f"detectron2 {version} is already there: {Path(module.__file__ or '').parent}"


def read_manifest(path: Path) -> dict[str, str]:
    """Read `sha256sum` lines into a dictionary: file name -> hexadecimal digest."""
    return {name: digest for digest, name in (line.split() for line in path.read_text().splitlines())}


def extract_package(bundle: Path, manifest: dict[str, str]) -> dict[str, bytes]:
    """Take the Python files of `LabGym/detectron2` from a wheel, undo the prefix, check every digest.

    Raises:
        InstallError: a file is missing, not in the manifest, or differs from upstream's.
    """
    files = {}
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            if name.startswith("LabGym/detectron2/") and name.endswith(".py"):
                content = archive.read(name).replace(b"LabGym.detectron2", b"detectron2")
                files[name.removeprefix("LabGym/")] = content
    for name in sorted(files.keys() ^ manifest.keys()):
        raise InstallError(
            f"{bundle.name}: {name} is {'not in the manifest' if name in files else 'missing'}"
        )
    for name, content in files.items():
        if (digest := hashlib.sha256(content).hexdigest()) != manifest[name]:
            raise InstallError(f"{bundle.name}: {name} differs from upstream: {digest}, not {manifest[name]}")
    return files


def build_wheel(files: dict[str, bytes], folder: Path) -> Path:
    """Write the files as an ordinary wheel of the distribution detectron2; return its path."""
    info = f"detectron2-{VERSION}.dist-info"
    contents = dict(files)
    contents[f"{info}/METADATA"] = METADATA.encode()
    contents[f"{info}/WHEEL"] = WHEEL.encode()
    contents[f"{info}/LICENSE"] = LICENSE.read_bytes()
    record = []
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            wheel.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return path


def install_from_wheel() -> None:
    """Fetch the bundle, check it, repack detectron2 and install it; pip installs all of it or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        # The bundle declares Python 3.9 and 3.10 only; that limit is LabGym's, so the download names 3.10.
        options = ("--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.10", f"--dest={folder}")
        remedy = "Is the package registry reachable? Where git works instead, add: --from git"
        run_pip("download", *options, BUNDLE, remedy=remedy)
        bundle = next(Path(folder).glob("*.whl"))
        if (digest := hashlib.sha256(bundle.read_bytes()).hexdigest()) != BUNDLE_SHA256:
            raise InstallError(
                f"{bundle.name} has the digest {digest}, not {BUNDLE_SHA256}; nothing was installed"
            )
        wheel = build_wheel(extract_package(bundle, read_manifest(MANIFEST)), Path(folder))
        run_pip("install", "--quiet", str(wheel), remedy="Nothing was installed.")


def install_from_git() -> None:
    """Build upstream's newest commit; without isolation, because its build imports the installed torch."""
    remedy = "This way needs git, a C++ compiler, torch, setuptools and wheel; without them use --from wheel"
    run_pip("install", "--quiet", "--no-build-isolation", f"git+{UPSTREAM}.git", remedy=remedy)


def main() -> None:
    """Parse the command line and install."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--from", dest="source", choices=("auto", "wheel", "git"), default="auto")
    source = parser.parse_args().source
    try:
        if source == "auto" and (found := find_installed()):
            print(found)
            return
        install_from_git() if source == "git" else install_from_wheel()
    except InstallError as error:
        sys.exit(f"install_detectron2: {error}")
    print(f"installed detectron2 {'from upstream' if source == 'git' else VERSION}")


if __name__ == "__main__":
    main()
