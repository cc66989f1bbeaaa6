"""Starts or joins Ray, and asks for its resources."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import ray

from .spec import Resources

_OBJECT_STORE = 100 * 2**20  # bytes; only metrics travel through it


@dataclass(frozen=True)
class Options:
    """Where and how a sweep runs.

    Attributes:
        output: folder of the sweep; on a cluster all nodes must see it.
        resume: go on with the sweep in ``output``.
        address: of a running Ray cluster; "" starts one that only this machine can reach.
        storage: where Ray keeps its own records, a shared path or a URI; "" for ``output/ray``.
        dashboard: start Ray's dashboard, on the loopback interface.
        cpus, gpus: of the machine, for a Ray started here; None: all there are.
    """

    output: Path
    resume: bool = False
    address: str = ""
    storage: str = ""
    dashboard: bool = False
    cpus: int | None = None
    gpus: int | None = None


def start(options: Options) -> None:
    """Starts Ray here, or joins a running cluster.

    Raises:
        OSError: it does not start, or there is no cluster at the address.
    """
    arguments: dict[str, Any] = {"address": options.address}
    if not options.address:
        _stay_on_loopback()
        arguments = {
            "address": "local",
            "num_cpus": options.cpus,
            "num_gpus": options.gpus,
            "include_dashboard": options.dashboard,
            "dashboard_host": "127.0.0.1",
            "object_store_memory": _OBJECT_STORE,
            "_node_ip_address": "127.0.0.1",
        }
    # A worker's own folder is elsewhere, and what the driver can import, it must be able to import.
    paths = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        ray.init(runtime_env=paths, **arguments, **quiet)
    except Exception as error:  # Ray raises that
        what = f"found no cluster at '{options.address}'" if options.address else "did not start"
        hint = "docs/cluster.md says how to start one" if options.address else "is the machine very busy?"
        raise OSError(f"Ray {what} ({hint}): {error}") from error


def _stay_on_loopback() -> None:
    """Ray takes 127.0.0.1 for an address others may not reach only where it believes clusters impossible."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for the processes it starts
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # for this one, which has read it already


def storage_of(options: Options) -> str:
    """Where Ray keeps its records, once something could be written there.

    Raises:
        OSError: nothing can.
    """
    place = options.storage if "://" in options.storage else str(Path(options.storage).resolve())
    if not options.storage:
        place = str(options.output.resolve() / "ray")
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(place)
        filesystem.create_dir(path, recursive=True)
        with filesystem.open_output_stream(f"{path}/.writable") as file:
            file.write(b"yes")
        filesystem.delete_file(f"{path}/.writable")
    except (pyarrow.ArrowException, OSError) as error:
        raise OSError(f"Ray's records cannot be written to '{place}' (--storage): {error}") from error
    return place


def check(wanted: Resources) -> None:
    """
    Raises:
        ValueError: no machine here has what one trial asks for.
    """
    for kind, label, amount in (("GPU", "GPUs", wanted.gpus), ("CPU", "CPU cores", wanted.cpus)):
        most = max((node.get(kind, 0) for node in _nodes()), default=0)
        if amount > most:
            raise ValueError(
                f"A trial asks for {amount:g} {label}, but no machine here has more than {most:g}. "
                "Lower 'resources' in the sweep file."
            )


def room(wanted: Resources, concurrency: int) -> int:
    """How many trials run at a time."""
    shares = (("CPU", wanted.cpus), ("GPU", wanted.gpus))
    fit = sum(int(min((node.get(kind, 0) / n for kind, n in shares if n), default=1)) for node in _nodes())
    return max(1, min(fit, concurrency or fit))


def whole(wanted: Resources) -> Resources:
    """What a trial gets that ran out of memory: a device of its own."""
    if wanted.gpus:
        return Resources(cpus=wanted.cpus, gpus=max(1.0, wanted.gpus))
    return Resources(cpus=max(node.get("CPU", 0.0) for node in _nodes()))


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
