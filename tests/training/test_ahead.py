from __future__ import annotations

import threading

import pytest

from xatmorep.training.ahead import read_ahead


def test_reading_ahead_keeps_order_and_ends():
    assert list(read_ahead(iter(range(20)), depth=3)) == list(range(20))


def test_reading_ahead_raises_what_went_wrong():
    def broken():
        yield 1
        raise ValueError("disk on fire")

    stream = read_ahead(broken())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="disk on fire"):
        next(stream)


def test_reading_ahead_stops_its_thread():
    stream = read_ahead(iter(range(10**9)), depth=2)
    next(stream)
    stream.close()
    assert not any(thread.name == "xatmorep-read-ahead" for thread in threading.enumerate())


def test_reading_goes_on_while_an_item_is_used():
    read = threading.Semaphore(0)

    def stream():
        for number in range(3):
            read.release()
            yield number

    items = read_ahead(stream(), depth=4)
    assert next(items) == 0
    for _ in range(3):  # the others are read, though nobody has asked for them
        assert read.acquire(timeout=10)
    items.close()
