"""How well and how dearly the local recogniser hears recorded speech behind G.711: `python -m bench.stt [prompts]`.

Words wrong, and the CPU time from the end of the utterance to its words, which on an idle core is the latency.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before numpy

import sys
import time

import numpy as np

from sipagent.speech import models, whisper
from tests.speech.prompts import prompts, through_ulaw
from tests.wer import errors, wer

WINDOWS_S = (30.0, 15.0, 10.0, 6.0)


def main(count: int) -> None:
    recogniser = whisper.Recogniser(models.locate("whisper-tiny.en", "stt"))
    said = [(prompt.text, through_ulaw(prompt.pcm)) for prompt in prompts(count)]
    seconds = sum(len(pcm) for _, pcm in said) / 8000
    print(f"{count} prompts, {seconds:.0f} s, mu-law, one thread\n")
    print("| encoder window | WER | all words right | CPU ms p50 / p95 | CPU s per audio s | confidence p5 |")
    print("|---|---|---|---|---|---|")
    for window in WINDOWS_S:
        whisper.WINDOW_S = window
        recogniser.transcribe(said[0][1], 8000)
        pairs, cpu, confidence = [], [], []
        for text, pcm in said:
            began = time.process_time()
            heard = recogniser.transcribe(pcm, 8000)
            cpu.append(1000 * (time.process_time() - began))
            pairs.append((text, heard.text))
            confidence.append(heard.confidence)
        right = sum(errors(*pair)[0] == 0 for pair in pairs)
        print(
            f"| {window:.0f} s | {100 * wer(pairs):.1f} % | {100 * right / count:.0f} % | {np.median(cpu):.0f} / "
            f"{np.percentile(cpu, 95):.0f} | {sum(cpu) / 1000 / seconds:.3f} | {np.percentile(confidence, 5):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
