"""Files appear whole or not at all."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
import time

import pytest

from fakd.files import atomic_write, exclusive_lock, remove_leftovers


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_old_file_and_a_leftover_that_is_removed(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys; from fakd.files import atomic_write\n"
        "with atomic_write(sys.argv[1], 'w') as file:\n"
        "    file.write('half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_space_is_named_and_nothing_is_lost(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*a.txt"), atomic_write(path, "w") as file:
            file.write("x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot write .*nowhere"), atomic_write(tmp_path / "nowhere" / "a.txt"):
        pass


HOLDER = (
    "import os, sys, time; from fakd.files import exclusive_lock\n"
    "with exclusive_lock(sys.argv[1], 0):\n"
    "    if not os.fork(): time.sleep(60)\n"  # a child that shares the open file, as data workers do
    "    print('held', flush=True); sys.stdin.read()\n"
    "print('released', flush=True); sys.stdin.close(); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path`` until its input is closed, and lives on."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_a_locked_folder_is_refused_with_who_holds_it(tmp_path, holder):
    with pytest.raises(TimeoutError, match=rf"{tmp_path}' is in use: process {holder.pid} on "):
        with exclusive_lock(tmp_path, 0.3):
            pass
    with exclusive_lock(tmp_path / "other", 0):
        pass


def test_a_lock_ends_with_its_block_though_children_live_on(tmp_path, holder):
    holder.stdin.close()
    assert holder.stdout.readline() == "released\n"
    with exclusive_lock(tmp_path, 0):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_lock_is_waited_for(tmp_path, holder):
    start = time.monotonic()
    os.killpg(holder.pid, 9)
    with exclusive_lock(tmp_path, 30):
        assert time.monotonic() - start < 20


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOLCK, False), (errno.EIO, True)])
def test_a_file_system_that_cannot_lock_is_named(tmp_path, monkeypatch, caplog, number, refused):
    def fail(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    if refused:
        with pytest.raises(OSError, match=rf"cannot lock '{tmp_path}"), exclusive_lock(tmp_path, 0):
            pass
    else:
        with exclusive_lock(tmp_path, 0):
            pass
        assert f"'{tmp_path}' has no locks" in caplog.text
