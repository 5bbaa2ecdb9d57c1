from __future__ import annotations

import signal
import threading

import pytest

from xatmorep.training.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_does_what_it_did_before(number):
    caught = []
    before = signal.signal(number, lambda *arguments: caught.append(arguments[0]))
    try:
        with Interrupt() as interrupt:
            assert interrupt.signal is None
            signal.raise_signal(number)
            assert interrupt.signal == number.name
            assert caught == []
            signal.raise_signal(number)
            assert caught == [number]
        signal.raise_signal(number)
        assert caught == [number, number]
    finally:
        signal.signal(number, before)


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    interrupt = Interrupt()
    with interrupt:
        assert signal.getsignal(signal.SIGTERM) != before[0]
        interrupt.__exit__(ValueError, ValueError(), None)
        assert signal.getsignal(signal.SIGTERM) == before[0]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_that_is_ignored_stays_so():
    """As SIGINT is in a job that a shell has put into the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert interrupt.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_change_nothing():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Interrupt() as interrupt:
            seen.extend([signal.getsignal(signal.SIGTERM), interrupt.signal])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, None]
