"""The frame of the HTML pages that commands write: each is whole in itself, for whoever gets the file."""

from __future__ import annotations

import html
from collections.abc import Iterable

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1d2530}
h1{font-size:1.5rem}h2{margin-top:2.2rem;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #e8ecf1}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
small{color:#667}svg{max-width:100%;height:auto}
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """The document of these parts, which are HTML; `style` is what is special to it."""
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
    return "\n".join([f"{head}<style>{_STYLE}{style}</style>", *parts]) + "</html>\n"
