"""The whole way in Python: a fresh model, a few made-up pairs, alignment, and the account of what it did.

python examples/align_in_python.py
"""

import json
import tempfile
from itertools import product
from pathlib import Path

import kilter

SIZES = "layers=2,hidden=64,heads=4,kv_heads=2,mlp=128,vocabulary=512,length=128"

with tempfile.TemporaryDirectory() as directory:
    here = Path(directory)

    # Pairs are rows of JSON: a prompt, the better answer, the worse one. The last 16 are held out: those of last week.
    times, things = ("today", "yesterday", "on Sunday", "last week"), ("soup", "wine", "cake", "room")
    good, bad = (" It was lovely.", " I liked it."), (" It was awful.", " I hated it.")
    rows = [
        {"prompt": f"How was the {thing} {time}?", "chosen": better, "rejected": worse}
        for time, thing, better, worse in product(times, things, good, bad)
    ]
    pairs = here / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps(row) for row in rows))

    # A model that has seen no preference yet: it learns to answer, well or badly.
    answers = here / "answers.jsonl"
    spoken = [{"prompt": row["prompt"], "completion": row[side]} for row in rows for side in ("chosen", "rejected")]
    answers.write_text("\n".join(json.dumps(row) for row in spoken))
    start = kilter.sft(kilter.SftConfig(data=answers, from_scratch=SIZES, out=here / "sft", epochs=3))

    aligned = kilter.align(
        kilter.AlignConfig(model=str(start), data=pairs, holdout=16, out=here / "align", epochs=2, learning_rate=1e-3)
    )
    print(f"held-out accuracy: {aligned.after.accuracy.value:.2f}")
