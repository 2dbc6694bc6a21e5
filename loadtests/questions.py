"""What the users of a load test ask: everyday questions of a bank's customers, some of them no bank's business.

A list of its own, kept apart from the corpus that models are trained on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from loadtests.conversations import Question
from loadtests.spoken import recordings

QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "I think I left my debit card on the bus",
        "how do i see what's in my account",
        "my transfer to my landlord never arrived",
        "Can I raise the limit on my credit card before my holiday?",
        "somebody bought shoes with my card and it wasn't me",
        "what time do you close on Saturday",
        "I can't remember the password for the app",
        "where is my new card, I ordered it two weeks ago",
        "what do you charge for sending money abroad",
        "I'd like to speak to a real person please",
        "how much would a car loan cost me per month",
        "please send me the statement for March",
        "hello there",
        "how many euros do I get for 1000 yuan",
        "do you know a good recipe for dumplings",
    ),
    "zh": (
        "我的卡好像落在出租车上了",
        "怎么看我账户里还有多少钱",
        "昨天转给房东的钱还没到",
        "信用卡额度能不能临时调高一点",
        "有一笔消费不是我本人刷的",
        "周六你们几点下班",
        "手机银行的密码想不起来了",
        "新卡都两个星期了还没收到",
        "往国外汇款要多少手续费",
        "我要找人工",
        "买车贷款一个月大概要还多少",
        "帮我打印三月份的流水",
        "你好",
        "一千块人民币能换多少欧元",
        "今天天气怎么样",
    ),
}


def questions(file: str | None = None) -> Mapping[str, Sequence[Question]]:
    """By language: those of a file (a JSON object in each line: `text`, `language`, and `intent` where it is known), or
    else the everyday ones above."""
    if file is None:
        return {
            language: [Question(text, language) for text in texts] for language, texts in QUESTIONS.items()
        }
    return _read(file)


def spoken(file: str | None = None) -> Mapping[str, Sequence[Question]]:
    """The same of recordings; without a file all that there are, and whatever they are taken for is as good."""
    if file is not None:
        return _read(file)
    return _by_language(replace(one, intent=None) for one in recordings())


def _read(file: str) -> Mapping[str, Sequence[Question]]:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return _by_language(Question(**json.loads(line)) for line in lines)


def _by_language(some: Iterable[Question]) -> Mapping[str, Sequence[Question]]:
    found: dict[str, list[Question]] = defaultdict(list)
    for one in some:
        found[one.language].append(one)
    return found
