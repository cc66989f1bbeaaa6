"""The wheel, installed away from the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SOURCES = ("fakd", "configs", "projects", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


class Wheel:
    """An environment of its own with the wheel, which finds the other packages here.

    Args:
        folder: empty, for the environment; commands are started in its ``elsewhere``.
    """

    def __init__(self, folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            options = {"symlinks": True} if copy is shutil.copytree else {}
            copy(ROOT / name, source / name, **options)
        build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
        subprocess.run([*PIP, *build], check=True)
        shutil.rmtree(source)
        self.environment = environment(folder / "environment")
        (wheel,) = folder.glob("*.whl")
        install = ["--python", str(self.environment), "install", "-q", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([*PIP, *install], check=True, env=_without_checkout())
        (packages,) = self.environment.glob("lib/*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")  # fakd is there, too
        self.folder = folder / "elsewhere"
        self.folder.mkdir()

    def __call__(
        self, *arguments: object, command: str = "fakd", cwd: Path | None = None, code: int = 0
    ) -> tuple[str, Path]:
        """What an installed command printed, and the folder it was started in."""
        datasets = os.environ.get("DETECTRON2_DATASETS", "datasets")
        done = subprocess.run(
            [str(self.environment / "bin" / command), *map(str, arguments)],
            cwd=cwd or self.folder,
            env=_without_checkout() | {"DETECTRON2_DATASETS": os.path.abspath(datasets)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout, cwd or self.folder


def _without_checkout() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def environment(folder: Path, packages: Iterable[str] = ()) -> Path:
    """A new environment without pip, with links to these packages of here and what they require."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (place,) = folder.glob("lib/*/site-packages")
    wanted, known = list(packages), set()
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        found = metadata.distribution(name)
        for top in {
            file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            (place / top).symlink_to(found.locate_file(top))
        required = map(Requirement, found.requires or ())
        wanted += [each.name for each in required if not each.marker or each.marker.evaluate({"extra": ""})]
    return folder
