"""The evidence of a release: what was signed is what is read, and whatever is changed in it is noticed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.releases.evidence import Bundle, Signer, bundle, verify
from switchboard.errors import SwitchboardError

SIGNER = Signer(bytes(range(32)))
RELEASE = {
    "metadata": {"name": "chat-8", "namespace": "serving", "uid": "u", "managedFields": [{"manager": "x"}]},
    "spec": {"server": "chat", "version": 8},
}
STATUS = {"phase": "Promoting", "sentence": "坏处已排除", "championVersion": 7}


def made(signer: Signer | None = SIGNER) -> Bundle:
    return bundle(RELEASE, STATUS, {"model": "chat-intent", "tags": {"switchboard.gate": "passed"}}, signer)


def test_what_was_signed_is_what_is_read() -> None:
    found = verify(made().document(), SIGNER.public)
    assert found["release"]["status"] == STATUS
    assert found["version"]["tags"] == {"switchboard.gate": "passed"}
    assert "managedFields" not in found["release"]["metadata"]
    assert made().sha256 == made().sha256, "the same release has the same evidence"


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    document = bytearray(made().document())
    place = data.draw(st.integers(0, len(document) - 1))
    document[place] ^= data.draw(st.integers(1, 255))
    try:
        found = verify(bytes(document), SIGNER.public)
    except (SwitchboardError, UnicodeDecodeError):
        return
    assert found == verify(made().document()), "what isn't noticed changes nothing that is read"


BAD: list[tuple[Any, str]] = [
    (lambda text: b"nonsense", "no bundle of evidence"),
    (lambda text: b"{}", "no bundle of evidence"),
    (lambda text: text.replace(b"passed", b"failed"), "was changed"),
    (lambda text: made(None).document(), "isn't signed"),
    (lambda text: made(Signer(b"k" * 32)).document(), "by another key"),
]


@pytest.mark.parametrize(("change", "says"), BAD, ids=[says for _, says in BAD])
def test_what_isnt_good_is_named(change: Any, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        verify(change(made().document()), SIGNER.public)


def test_a_signature_of_something_else() -> None:
    document = json.loads(made().document())
    document["signature"] = base64.b64encode(SIGNER.sign(b"something else")).decode()
    with pytest.raises(SwitchboardError, match="signature isn't good"):
        verify(json.dumps(document).encode())


def test_the_key_is_a_file(tmp_path: Path) -> None:
    assert Signer.from_file(None) is None
    assert Signer.from_file(tmp_path / "none") is None
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
    bad.write_text("no key")
    signer = Signer.from_file(good)
    assert signer is not None
    assert signer.public == SIGNER.public
    with pytest.raises(SwitchboardError, match="is not 32 bytes in base64"):
        Signer.from_file(bad)
