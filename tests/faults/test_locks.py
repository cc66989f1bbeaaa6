"""Two runs never share a folder."""

import os

import pytest
from detectron2.engine import HookBase
from integration.conftest import tiny_config

from fakd.engine import SharedTeacherRun, run, run_folder, run_side_by_side
from fakd.files import exclusive_lock


class StartsAnother(HookBase):
    """In the middle of a run, resumes it a second time."""

    error: Exception

    def before_step(self):
        if self.trainer.iter == 6:
            with pytest.raises(OSError, match="in use") as caught:
                run(self.trainer.cfg, resume=True)
            self.error = caught.value


@pytest.fixture
def another(monkeypatch):
    monkeypatch.setattr(run_folder, "_PATIENCE", 0.3)
    return StartsAnother()


def assert_refused(another, folder):
    assert isinstance(another.error, TimeoutError)
    assert f"'{folder}' is in use: process {os.getpid()} on " in str(another.error)
    with exclusive_lock(folder, 0):
        assert (folder / "result.json").exists()


def test_a_second_run_in_a_folder_gets_one_clear_error(tiny, tmp_path, another):
    tiny(tmp_path, extra_hooks=[another])
    assert_refused(another, tmp_path)


def test_so_does_one_beside_a_shared_teacher(teacher, tmp_path, another):
    packed = SharedTeacherRun(tiny_config(tmp_path, *teacher, recipe="cwd"), extra_hooks=[another])
    run_side_by_side([packed])
    assert packed.error is None
    assert_refused(another, tmp_path)
