"""Checks the installation and prints, for everything that is missing, the command that fixes it.

    make doctor               in a checkout, even when nothing is installed yet
    python -m fakd.doctor     wherever fakd can be imported

This file needs only the standard library. Exit status 1: something that fakd needs is missing.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import platform
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PYTHON = shlex.quote(sys.executable or "python3")


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        subject: what was checked.
        says: what was found.
        remedy: a command or a sentence; None when nothing is wrong.
        needed: whether fakd does not work until this is fixed.
    """

    subject: str
    says: str
    remedy: str | None = None
    needed: bool = False


def check_python() -> Finding:
    """Whether this interpreter is one that fakd is tested with."""
    says = f"{platform.python_version()} at {sys.executable}"
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", says)
    return Finding("python", says, "rm -rf .venv && make install PYTHON=python3.12", needed=True)


def requirements() -> list[str]:
    """fakd's requirements: from setup.cfg in a checkout, else from the installed distribution."""
    if (ROOT / "setup.cfg").exists():
        parser = configparser.ConfigParser()
        parser.read(ROOT / "setup.cfg")
        return parser["options"]["install_requires"].split()
    return [line for line in metadata.requires("fakd") or [] if "extra ==" not in line]


def check_requirement(requirement: str) -> Finding:
    """Whether a package is there in a version that the requirement allows."""
    name = re.split(r"[<>=!\[; ]", requirement)[0]
    remedy = f"{PYTHON} -m pip install {shlex.quote(requirement)}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", remedy, needed=True)
    if util.find_spec("packaging"):  # missing only where much else is missing
        from packaging.requirements import Requirement

        if not Requirement(requirement).specifier.contains(version, prereleases=True):
            return Finding(name, f"{version}, but {requirement} is needed", remedy, needed=True)
    return Finding(name, version)


def check_import(module: str, remedy: str) -> Iterator[Finding]:
    """Yields a finding only if an installed module fails when it is imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # a broken installation fails in any way: OSError, RuntimeError, ...
        yield Finding(module, f"does not import: {type(error).__name__}: {error}", remedy, needed=True)


def detectron2_command() -> str:
    """The command that installs detectron2 for this interpreter."""
    return f"{PYTHON} {shlex.quote(str(Path(__file__).with_name('install_detectron2.py')))}"


def check_detectron2() -> Finding:
    """Which detectron2 this is: the repacked wheel, a git commit, or a folder."""
    spec = util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # no origin: a bare folder of that name
        return Finding("detectron2", "not installed", detectron2_command(), needed=True)
    try:
        distribution = metadata.distribution("detectron2")
    except metadata.PackageNotFoundError:
        return Finding("detectron2", f"a folder on Python's path: {spec.origin}")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if "vcs_info" in origin:
        source = f"git commit {origin['vcs_info']['commit_id'][:7]} of {origin['url']}"
    elif "+59d9fb1" in distribution.version:
        source = "upstream commit 59d9fb1, repacked by install_detectron2.py"
    else:
        source = spec.origin
    operators = "with" if list(Path(spec.origin).parent.glob("_C.*")) else "without"
    return Finding("detectron2", f"{distribution.version}, {source}, {operators} compiled operators")


def check_devices() -> Iterator[Finding]:
    """Processors, memory and, where torch imports, CUDA devices."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    says = f"{platform.machine()}, {cores} cores"
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        says += f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB of memory"
    torch = sys.modules.get("torch")
    if torch is None:
        yield Finding("cpu", says)
        return
    yield Finding("cpu", f"{says}, {torch.get_num_threads()} threads in torch")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
        remedy = None
        if shutil.which("nvidia-smi"):  # there is a device, so the driver or the build does not match it
            reinstall = f"{PYTHON} -m pip install --force-reinstall torch torchvision"
            remedy = f"nvidia-smi    # is its CUDA older than {built}?" if torch.version.cuda else reinstall
        yield Finding("cuda", f"no device that torch, built for {built}, can use", remedy)


def check_datasets() -> Iterator[Finding]:
    """Which of fakd's datasets are found; nothing is generated or written."""
    root = os.environ.get("DETECTRON2_DATASETS")
    yield Finding(
        "datasets", f"in {root or 'datasets'} (DETECTRON2_DATASETS is {'set' if root else 'not set'})"
    )
    from detectron2.data import DatasetCatalog

    for name in DatasetCatalog:
        load = DatasetCatalog.data[name]
        if not getattr(load, "func", load).__module__.startswith("fakd."):
            continue  # detectron2's own
        if name.startswith("toyscenes_"):
            yield Finding(name, "generated at its first use")
            continue
        try:
            yield Finding(name, f"{len(DatasetCatalog.get(name))} images")
        except (OSError, ValueError) as error:
            says, _, remedy = str(error).partition(". ")
            yield Finding(name, says, remedy or "see the README")


def examine() -> Iterator[Finding]:
    """All checks, in the order in which problems must be fixed."""
    installed = [check_python(), *map(check_requirement, requirements()), check_detectron2()]
    yield from installed
    if not any(
        finding.needed for finding in installed
    ):  # else imports would fail for the reasons already listed
        for module in ("torch", "torchvision", "timm", "cv2"):
            name = "opencv-python-headless" if module == "cv2" else module
            yield from check_import(module, f"{PYTHON} -m pip install --force-reinstall --no-deps {name}")
        again = f"{PYTHON} -m pip uninstall -y detectron2 && {detectron2_command()}"
        yield from check_import("detectron2.engine", again)
        here = f"-e {shlex.quote(str(ROOT))}" if (ROOT / "setup.cfg").exists() else "--force-reinstall fakd"
        yield from check_import("fakd.modeling", f"{PYTHON} -m pip install {here}")
        yield from check_import("fakd.data", f"{PYTHON} -m pip install {here}")
    yield from check_devices()
    if "fakd.data" in sys.modules:
        yield from check_datasets()


def main() -> None:
    """Prints a line per finding; exits with 1 if something needed is missing."""
    needed, said = 0, None
    for finding in examine():
        mark = "  " if finding.remedy is None else "! " if finding.needed else "- "
        print(f"{mark}{finding.subject:<24}{finding.says}")
        if finding.remedy and finding.remedy != said:  # the splits of a dataset share theirs
            print(f"{'':<26}-> {finding.remedy}")
        said = finding.remedy
        needed += finding.needed
    print(f"\n{needed} to fix, marked with !" if needed else "\nNothing that fakd needs is missing.")
    sys.exit(needed > 0)


if __name__ == "__main__":
    main()
