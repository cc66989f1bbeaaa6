"""A result is written whatever git says of the code."""

import subprocess

import pytest

from fakd.engine import provenance


@pytest.mark.parametrize("late", ["ls-files", "status", "rev-parse"])
def test_a_git_that_takes_too_long_leaves_the_commit_unknown(monkeypatch, late):
    def run(command, **options):
        if late in command:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    assert provenance.commit() is None
