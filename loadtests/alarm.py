"""Wakes a greenlet at a time, to some tens of microseconds: by a timer of the kernel's that the loop watches as a file.

gevent's own timers are whole milliseconds (epoll's), so that a request would go out half a one after it was due, on
average. Where the kernel has no such timer (it isn't Linux), those have to do.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final, Protocol

import gevent
from gevent.event import Event

LONGEST_S: Final = 3600.0
_SOONEST_NS: Final = 1
"""0 would stop the timer."""
_MONOTONIC: Final = 1
_READ: Final = 1


class Alarm(Protocol):
    def wait(self, seconds: float) -> None:
        """So long (an hour at most), or until `wake`."""

    def wake(self) -> None:
        """Whoever waits goes on."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class KernelAlarm:
    """For one greenlet.

    Raises:
        OSError: the kernel gives no timer.
        AttributeError: it has none.
    """

    def __init__(self) -> None:
        self._c = ctypes.CDLL(None, use_errno=True)
        self._fd = self._c.timerfd_create(_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop = gevent.get_hub().loop
        self._watcher = loop.io(self._fd, _READ, priority=loop.MAXPRI)

    def wait(self, seconds: float) -> None:
        self._set(seconds)
        gevent.get_hub().wait(self._watcher)
        with suppress(BlockingIOError):
            os.read(self._fd, 8)

    def wake(self) -> None:
        self._set(0.0)

    def _set(self, seconds: float) -> None:
        nanoseconds = max(_SOONEST_NS, round(min(seconds, LONGEST_S) * 1e9))
        timer = _Timer(value=_Timespec(*divmod(nanoseconds, 10**9)))
        if self._c.timerfd_settime(self._fd, 0, ctypes.byref(timer), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def __del__(self) -> None:
        if (fd := getattr(self, "_fd", -1)) >= 0:
            os.close(fd)


class LoopAlarm:
    """By the loop's own timers."""

    def __init__(self) -> None:
        self._woken = Event()

    def wait(self, seconds: float) -> None:
        self._woken.clear()
        self._woken.wait(timeout=min(seconds, LONGEST_S))

    def wake(self) -> None:
        self._woken.set()


def alarm() -> Alarm:
    """The best that there is here."""
    try:
        return KernelAlarm()
    except (OSError, AttributeError):
        return LoopAlarm()
