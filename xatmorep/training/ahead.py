"""The next items of a stream, prepared while the last one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")


def read_ahead(stream: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """Prepare the next items in a thread while one is worked on.

    Parameters
    ----------
    stream : iterator
        Endless or not. What it raises is raised again where the items are used.
    depth : int
        Items that may wait.

    Yields
    ------
    object
        The items, in order. Close the generator to end its thread.

    Examples
    --------
    >>> list(read_ahead(iter("abc")))
    ['a', 'b', 'c']
    """
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    done = threading.Event()

    def put(item: T | BaseException | None) -> None:
        while not done.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def work() -> None:
        try:
            for item in stream:
                put(item)
                if done.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where it can be seen
            put(error)

    thread = threading.Thread(target=work, name="xatmorep-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        done.set()
        thread.join()
