"""Which language to answer in, when the request doesn't say."""

from __future__ import annotations

import re
from typing import Final

from serving.chat.wire import Language

ZH_SHARE: Final = 0.5
"""From this share of Han characters among all words on, a text is Chinese."""

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_WORD = re.compile(r"[^\W\d_]+")


def detect(text: str) -> Language:
    """Chinese where Han characters are at least half of the words, a run of other letters being one word.

    People mix: "我的 credit card 丢了" is Chinese, "transfer to 王小明 please, and hurry up" is English. A text
    without letters (digits, emoji) counts as English.
    """
    han = len(_HAN.findall(text))
    words = len(_WORD.findall(_HAN.sub(" ", text)))
    return "zh" if han and han / (han + words) >= ZH_SHARE else "en"
