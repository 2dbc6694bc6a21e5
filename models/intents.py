"""The intents: what a customer may want, as the one list that data, models and answers agree on.

Import-light (no third-party packages). The corpus must have every intent of `INTENTS`, a model answers with one of
them or with `HANDOVER`, and the serving side must have an answer for each of `ANSWERABLE`.
"""

from __future__ import annotations

from typing import Final

INTENTS: Final[dict[str, str]] = {
    "account_close": "close an account",
    "account_open": "open an account",
    "balance_inquiry": "how much money is in the account",
    "bill_payment": "pay a utility, phone or other bill",
    "branch_hours": "where a branch is and when it is open",
    "card_activate": "activate a card that has arrived",
    "card_lost": "a card is lost or stolen and must be blocked",
    "card_not_arrived": "a card that was ordered has not come",
    "credit_limit_raise": "a higher credit card limit",
    "exchange_rate": "rates of foreign currencies",
    "fee_inquiry": "what something costs, or why a fee was charged",
    "fraud_report": "a payment that the customer didn't make, a scam, a suspicious call",
    "greeting": "hello, thanks, goodbye",
    "human_agent": "wants to talk to a person",
    "loan_apply": "how to apply for a loan, what is needed",
    "loan_rate": "the interest rate of loans",
    "password_reset": "the password of the app or online banking is forgotten or locked",
    "pin_forgotten": "the PIN of a card is forgotten, blocked or to be changed",
    "repayment_date": "when and how much to repay on a credit card or loan",
    "statement_download": "a statement or proof of transactions",
    "transfer_failed": "a transfer was refused, failed or came back",
    "transfer_limit": "how much may be transferred, and how to change it",
    "transfer_status": "where a transfer is and when it will arrive",
}

HANDOVER: Final = "handover"
"""The model's answer when it isn't sure enough, or when the question isn't about banking: a person takes over."""

OUT_OF_SCOPE: Final = "out_of_scope"
"""The background class that a model is trained with; it is never an answer, `HANDOVER` is given in its place."""

ANSWERABLE: Final[tuple[str, ...]] = (*INTENTS, HANDOVER)
"""Every value that `Prediction.intent` may have."""

LANGUAGES: Final[tuple[str, ...]] = ("en", "zh")
