"""SIGTERM and Ctrl-C as a wish that the loop fulfils when a step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["Interrupt"]


class Interrupt:
    """Notes SIGTERM and SIGINT while the block runs; a second one does what it did before.

    Signals are the business of the main thread; in another one nothing is changed, and neither is
    a signal that is ignored.

    Attributes
    ----------
    signal : str or None
        Name of the signal that came, if one did.

    Examples
    --------
    >>> with Interrupt() as interrupt:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     interrupt.signal
    'SIGTERM'
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number)
                # Not set by Python, so that it could not be set back; or ignored, as in background.
                if before in (None, signal.SIG_IGN):
                    continue
                self._before[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)  # type: ignore[arg-type]
