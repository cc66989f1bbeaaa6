"""Functions on several ranks, in processes that share their imports."""

import functools
import multiprocessing
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.multiprocessing as mp
from detectron2.engine import launch

multiprocessing.get_context("forkserver").set_forkserver_preload(["fakd.engine"])


def on_ranks(function: Callable[..., None], ranks: int, *args: Any) -> None:
    """detectron2's ``launch``, but the processes are copies of one that has imported everything.

    Importing takes each process longer than what a test does there.
    """
    copies = functools.partial(mp.start_processes, start_method="forkserver")
    with mock.patch.object(mp, "start_processes", copies):
        launch(_run, ranks, dist_url="auto", args=(dict(os.environ), function, args))


def _run(environment: dict[str, str], function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)  # the first process may have started before it was changed
    torch.set_num_threads(1)
    function(*args)
