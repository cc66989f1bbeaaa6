"""A signal is never lost, whatever it interrupts."""

import os
import signal

import pytest

from fakd.engine import signals
from fakd.engine.signals import received_signal, signals_deferred, stop_on_signals

BOTH = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@pytest.fixture(autouse=True)
def handlers():
    """Nothing stays behind."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@BOTH
def test_a_signal_ends_the_block_at_once(number, code):
    with pytest.raises(SystemExit) as stop, stop_on_signals(), stop_on_signals():
        signal.raise_signal(number)
        pytest.fail("went on")
    assert stop.value.code == code


@BOTH
def test_a_deferred_signal_ends_the_block_at_its_end(number, code):
    seen = []
    with pytest.raises(SystemExit) as stop, stop_on_signals():
        with signals_deferred():
            signal.raise_signal(number)
            seen.append(received_signal())
        pytest.fail("went on")
    assert stop.value.code == code and seen == [number]


def test_signals_at_once_are_one_and_a_later_one_ends_what_is_deferred(monkeypatch):
    seen = []
    with pytest.raises(SystemExit), signals_deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        seen.append("still there")
        monkeypatch.setattr(signals, "_ONE_STOP", 0.0)
        signal.raise_signal(signal.SIGINT)
        seen.append("went on")
    assert seen == ["still there"]


@pytest.mark.parametrize("hides", [True, False])
def test_what_swallows_the_exception_does_not_swallow_the_signal(hides):
    with pytest.raises(SystemExit) as stop, stop_on_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        except SystemExit:
            if hides:
                raise RuntimeError("as torch.save does") from None
    assert stop.value.code == 130


def test_an_error_in_the_deferred_block_stays_the_error():
    with pytest.raises(OSError, match="disk"), signals_deferred():
        signal.raise_signal(signal.SIGINT)
        raise OSError("the disk is full")


def test_an_earlier_signal_does_not_stop_a_later_block():
    with pytest.raises(SystemExit), stop_on_signals():
        signal.raise_signal(signal.SIGINT)
    with stop_on_signals():
        assert received_signal() == 0


def test_a_forked_process_leaves_its_parents_signals_alone():
    with stop_on_signals():
        if not (child := os.fork()):
            signal.raise_signal(signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
