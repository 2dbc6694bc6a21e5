"""What the Service proxy tells about itself in `run/proxy.ready`: that it works, and which ports it can't serve."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_TOLD = 3


class Report(BaseModel):
    """Ports of Services (`namespace/name:port`) that Envoy can't listen on, and why.

    Those in `dispensable` are no defect: pods reach the API server without the Service `kubernetes`, whose port 443
    an ordinary user may not have.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    refused: dict[str, str] = Field(default_factory=dict)
    dispensable: dict[str, str] = Field(default_factory=dict)

    @property
    def note(self) -> str:
        """For a human, what is a defect first; empty where every port is served."""
        told = [*sorted(self.refused.items()), *sorted(self.dispensable.items())]
        lines = [f"Service port {name} isn't served: {why}" for name, why in told[:_TOLD]]
        return "; ".join(lines + ([f"and {len(told) - _TOLD} more"] if len(told) > _TOLD else []))


def read(path: Path) -> Report | None:
    """The proxy's report; None where it isn't ready."""
    try:
        text = path.read_text()
    except OSError:
        return None
    try:
        return Report.model_validate_json(text or "{}")
    except ValidationError:  # of another version: ready it is
        return Report()


def write(path: Path, report: Report) -> None:
    """Replace the file by rename; nothing where it says so already."""
    if read(path) == report:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(report.model_dump_json())
    temporary.replace(path)
