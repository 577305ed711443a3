"""Runs the steps of a page one after the other in one process, which loads torch once: `run_page.py < steps.json`.

A step is ["kilter", arguments...] or ["python", code]. What each printed is written as a JSON list; the first that
fails ends the process with its message.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings

# What the libraries themselves warn of is not the page's matter.
warnings.simplefilter("ignore")


def run(kind: str, *arguments: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if kind == "python":
            exec(compile(arguments[0], "a block of the page", "exec"), {"__name__": "__main__"})
            return printed.getvalue()
        from kilter.cli import main

        sys.argv = [kind, *arguments]
        try:
            main()
        except SystemExit as stopped:
            if stopped.code:
                raise
    return printed.getvalue()


outputs = []
for step in json.load(sys.stdin):
    try:
        outputs.append(run(*step))
    except SystemExit as stopped:
        sys.exit(f"{' '.join(step)}\nended with {stopped.code}")
print(json.dumps(outputs))
