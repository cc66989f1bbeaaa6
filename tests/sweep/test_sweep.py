"""Sweeps with Ray: the same results as runs by hand, whatever happens in between."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("ray", reason="sweeps need ray: pip install 'ray[tune]'")

from fakd.sweep.events import events_file, last
from fakd.sweep.plan import make_plan
from fakd.sweep.ray_cluster import Options
from fakd.sweep.ray_tune import run_sweep
from fakd.sweep.spec import parse_spec
from fakd.sweep.worker import run_trials

from .conftest import alive, content, trouble

TOOL = Path(__file__).parents[2] / "tools" / "tune.py"
METHODS = ("Waits", "Dies", "RunsOut", "Fails")


def start(folder, given, output, *arguments):
    """The command, started in a process of its own."""
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(given))
    command = [sys.executable, str(TOOL), "--spec", str(spec), "--output", str(output), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(output):
    """Weights and metrics of every finished run."""
    return {
        str(path.parent.relative_to(output)): (
            json.loads(path.read_text())["metrics"],
            torch.load(path.with_name("model_final.pth"))["model"],
        )
        for path in output.glob("*/*/*/result.json")
    } | {
        str(path.parent.relative_to(output)): (json.loads(path.read_text())["metrics"], {})
        for path in output.glob("teachers/*/*/result.json")
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, (metrics, weights) in first.items():
        assert metrics == second[name][0], name
        assert all(torch.equal(w, second[name][1][k]) for k, w in weights.items()), name


def wait_for(condition, process, seconds=500):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.2)


def family(pid):
    """A process and all that descend from it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pid):
    """Addresses, in the kernel's hexadecimal, on which a process or its descendants listen."""
    sockets = set()
    for member in family(pid):
        with contextlib.suppress(OSError):
            sockets |= {os.readlink(file) for file in Path(f"/proc/{member}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").open()]
    return {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep file with all kinds of trouble, and what its runs give by hand and undisturbed."""
    folder = tmp_path_factory.mktemp("sweep")
    marker = folder / "marker"
    methods = [trouble(folder, name, marker=str(marker / name)) for name in METHODS]
    marker.mkdir()
    for name in METHODS[:3]:
        (marker / name).touch()
    given = content(methods=["student", *methods], concurrency=2)
    plan = make_plan(parse_spec(given), folder / "by_hand")
    for trial in [*plan.teachers, *plan.trials]:
        run_trials([trial], folder / "by_hand")
    for path in marker.iterdir():
        path.unlink()
    return folder, marker, given


def test_a_killed_sweep_goes_on_and_ends_like_an_undisturbed_one(tool, sweep):
    """The driver is killed in the middle, later a trial kills itself, one runs out of memory, one fails."""
    folder, marker, given = sweep
    output = folder / "output"
    process = start(folder, given, output, "--cpus", "2", "--allow-plugins")
    waiting = output / "runs" / "waits" / "seed0"
    finished = output / "runs" / "student" / "seed0" / "result.json"
    wait_for(lambda: finished.exists() and (waiting / "model_0000001.pth").exists(), process)
    addresses = listening(process.pid)
    assert addresses
    assert all(a.split(":")[0].endswith("0100007F") for a in addresses), "open to other machines"
    pid = last(events_file(output, waiting), "start")["pid"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive(pid), subprocess.Popen(["sleep", "60"]))
    written = finished.stat().st_mtime_ns
    (marker / "Waits").touch()

    resumed = ("--spec", folder / "spec.yaml", "--output", output, "--cpus", 2, "--allow-plugins", "--resume")
    code, told = tool("tune", *resumed)
    assert code == 1 and "this never works" in told, told
    assert_same(outcome(folder / "by_hand"), outcome(output))
    assert finished.stat().st_mtime_ns == written
    assert (marker / "Dies").exists() and (marker / "RunsOut").exists()
    text = (output / "report.md").read_text()
    assert "fails/seed0: failed: this never works" in text and "waits" in text


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, (), "Continue it with --resume"),
        ({"seeds": [7]}, ("--resume",), "holds a different sweep"),
    ],
)
def test_a_folder_of_a_sweep_is_not_taken_for_another(tool, tmp_path, changes, arguments, message):
    given = content(methods=["student"])
    (tmp_path / "sweep.json").write_text(json.dumps(parse_spec(given).content()))
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(given | changes))
    code, told = tool("tune", "--spec", spec, "--output", tmp_path, *arguments)
    assert code == 1 and message in told and not (tmp_path / "runs").exists()


def test_what_no_device_can_run_is_refused_before_anything_runs(tool, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(content(methods=["student"], resources={"gpus": 64})))
    code, told = tool("tune", "--spec", spec, "--output", tmp_path / "output", "--cpus", 1)
    assert code == 1 and "asks for 64 GPUs" in told and not (tmp_path / "output" / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "a_file/out"}, "a_file"),
        ({"storage": "memory://records"}, "--storage"),
        ({"storage": "a_file/records"}, "--storage"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_ray_starts(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    monkeypatch.setattr("fakd.sweep.ray_cluster.start", lambda options: pytest.fail("Ray was started"))
    options = Options(Path(options.pop("output", "out")), **options)
    with pytest.raises(OSError, match=message):
        run_sweep(parse_spec(content(methods=["student"])), options)


def test_a_disk_that_is_nearly_full_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fakd.sweep.executor._FREE_BYTES", 2**60)
    with pytest.raises(OSError, match="MB are free"):
        run_sweep(parse_spec(content(methods=["student"])), Options(tmp_path))


def start_node(*arguments):
    """One node of a cluster on this machine, once it is up."""
    command = [str(Path(sys.executable).with_name("ray")), "start", *arguments, "--block"]
    command += ["--object-store-memory", "80000000", "--disable-usage-stats"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = ""
    for line in process.stdout:
        told += line
        if "Ray runtime started" in line:
            return process
    raise AssertionError(told)


@pytest.mark.slow  # a minute and a half
def test_two_nodes_share_a_packed_sweep(tmp_path, monkeypatch):
    """Two `ray start` on this machine; the second alone has room for a trial."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of this cluster alone
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"127.0.0.1:{port}"
    temporary = f"/tmp/fakd_ray_{os.getpid()}"  # a socket's path must be short
    head = (
        "--head",
        "--port",
        port,
        "--num-cpus",
        "1",
        "--include-dashboard",
        "false",
        "--temp-dir",
        temporary,
    )
    nodes = []
    given = content(methods=["cwd", "pd"], pack="auto", resources={"cpus": 2})
    try:
        for arguments in (head, ("--address", address, "--num-cpus", "2")):
            nodes.append(start_node(*arguments))
        process = start(tmp_path, given, tmp_path / "output", "--address", address)
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.wait()
        shutil.rmtree(temporary, ignore_errors=True)
    plan = make_plan(parse_spec(given), tmp_path / "by_hand")
    for trial in [*plan.teachers, *plan.trials]:
        run_trials([trial], tmp_path / "by_hand")
    assert_same(outcome(tmp_path / "by_hand"), outcome(tmp_path / "output"))
    packed = json.loads((tmp_path / "output" / "runs" / "cwd" / "seed0" / "result.json").read_text())[
        "packed"
    ]
    assert packed == 2


SLOW_SAVING = """
import time
from pathlib import Path
from fakd.checkpoint import Checkpointer

save = Checkpointer.save_model

def slowly(self, *arguments, **options):
    Path(__file__).with_name("saving").touch()
    while not Path(__file__).with_name("signalled").exists():
        time.sleep(0.05)
    save(self, *arguments, **options)

Checkpointer.save_model = slowly
"""


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_while_the_teacher_ends_ends_the_sweep(tmp_path, capsys, number):
    """It comes while the teacher writes its last checkpoint: no later stage begins."""
    (tmp_path / "slow.py").write_text(SLOW_SAVING)
    given = content(methods=["cwd"])
    given["opts"] |= {"PLUGINS": ["tiny_plugin", str(tmp_path / "slow.py")], "TEST.EVAL_PERIOD": 0}

    def send():
        while not (tmp_path / "saving").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), number)
        (tmp_path / "signalled").touch()

    threading.Thread(target=send, daemon=True).start()
    code = run_sweep(parse_spec(given), Options(tmp_path / "output", cpus=1))
    told = capsys.readouterr().out
    assert code == 128 + number and "with --resume continues it" in told, told
    assert not (tmp_path / "output" / "runs").exists()


def test_a_disk_without_room_for_the_drivers_line_fails_the_trial(tmp_path, monkeypatch, capsys):
    """The trial's process dies, and nobody can write down that it did."""
    write = os.write

    def full(descriptor, text):
        if b'"failed"' in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, text)

    monkeypatch.setattr(os, "write", full)
    given = content(methods=[trouble(tmp_path, "Dies", marker=str(tmp_path / "marker")), "cwd"], retries=0)
    assert run_sweep(parse_spec(given), Options(tmp_path / "output", cpus=2)) == 1
    told = "".join(capsys.readouterr())
    assert "failed: dies seed 0: " in told and "2 of 3 trials are done, 1 failed" in told
