"""Functions on several ranks, in processes that share their imports."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
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
