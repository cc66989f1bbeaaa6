"""What WRITERS may name: services that a run's numbers are sent to, besides console, json and TensorBoard."""

from collections import defaultdict
from importlib import import_module
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

_SMOOTHED = 20  # steps, as in detectron2's own writers


class ScalarWriter(EventWriter):
    """Sends every scalar of the event storage once.

    Args:
        first_iter: the first iteration of this process; older numbers were sent by another.

    Attributes:
        complete: the run has done its last step; it is said before ``close``.
    """

    complete = True

    def __init__(self, first_iter: int) -> None:
        self._last = first_iter - 1

    def send(self, scalars: dict[str, float], iteration: int) -> None:
        """Sends the scalars of one iteration."""
        raise NotImplementedError

    def write(self) -> None:
        """Sends what came since the last call."""
        found: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(_SMOOTHED).items():
            if iteration > self._last:
                found[iteration][name] = float(value)
        for iteration, scalars in sorted(found.items()):
            self.send(scalars, iteration)
        self._last = max([self._last, *found])


def build_writers(cfg: CfgNode, first_iter: int) -> list[EventWriter]:
    """The writers that WRITERS names, each in a file of its own, which alone imports its package.

    Raises:
        ValueError: the package is not installed.
    """
    return [_build(name, cfg, first_iter) for name in cfg.WRITERS]


def _build(name: str, cfg: CfgNode, first_iter: int) -> EventWriter:
    writer = import_module(f"{__package__}.{name}_writer").Writer
    try:
        return writer(cfg, first_iter)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"WRITERS names {name}, but its package is not installed: pip install 'fakd[{name}]'."
        ) from error


def known_id(cfg: CfgNode, service: str, first_iter: int) -> str | None:
    """What the service called this run when it began; None for a new one."""
    file = _id_file(cfg, service)
    return file.read_text() if first_iter and file.is_file() else None


def keep_id(cfg: CfgNode, service: str, identity: str) -> None:
    """Remembers it for a resume."""
    _id_file(cfg, service).write_text(identity)


def _id_file(cfg: CfgNode, service: str) -> Path:
    return Path(cfg.OUTPUT_DIR, f"{service}_id.txt")
