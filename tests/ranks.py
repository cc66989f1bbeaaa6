"""Functions on several ranks, and commands, in processes that share their imports."""

import contextlib
import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.multiprocessing as mp
from detectron2.engine import launch

multiprocessing.get_context("forkserver").set_forkserver_preload(["fakd.engine"])
_start_processes = mp.start_processes


def on_ranks(function: Callable[..., None], ranks: int, *args: Any) -> None:
    """Calls ``function(*args)`` in a process per rank."""
    with copied_processes():
        launch(function, ranks, dist_url="auto", args=args)


@contextlib.contextmanager
def copied_processes() -> Iterator[None]:
    """PyTorch's processes are copies of one that has imported everything, which takes longer than a test."""
    with mock.patch.object(mp, "start_processes", _start_copies):
        yield


def _start_copies(fn: Callable[..., None], args: tuple[Any, ...] = (), **options: Any) -> Any:
    # The process that is copied may have started before a test changed the environment.
    options["start_method"] = "forkserver"
    return _start_processes(_run, (dict(os.environ), fn, args), **options)


def _run(rank: int, environment: dict[str, str], fn: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    fn(rank, *args)


class Command:
    """A tool in a process of its own, with what tests need of ``subprocess.Popen``."""

    def __init__(self, words: list[str], output: Path, own_group: bool = False) -> None:
        """
        Args:
            words: path of the tool, and its arguments.
            output: file that takes what it prints.
            own_group: start a process group, whose number is the process's.
        """
        self._output = output
        given = (dict(os.environ), words, str(output), own_group)
        self._process = multiprocessing.get_context("forkserver").Process(target=_run_tool, args=given)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        assert self.wait(timeout) is not None, "it takes too long"
        return self._output.read_text(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run_tool(environment: dict[str, str], words: list[str], output: str, own_group: bool) -> None:
    os.environ.update(environment)
    if own_group:
        os.setsid()
    with open(output, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
