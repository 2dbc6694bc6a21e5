"""What the tests of several parts of the embedded cloud share."""

from __future__ import annotations

from tests.infra.local.runtime.conftest import box

__all__ = ["box"]
