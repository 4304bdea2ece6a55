"""Runs the real ``swiftdiff serve-local`` on a system that takes a while for each step.

Usage: ``python server_cli.py SECONDS_PER_STEP OPTIONS...``
"""

from __future__ import annotations

import sys
import time
from typing import Any

from http_server import StepSystem

from swiftdiff.cli import main
from swiftdiff.systems import ENGINES

if __name__ == "__main__":
    step_s = float(sys.argv[1])

    class SlowSystem(StepSystem):
        def attend(self, on_step: Any) -> None:
            def slowly(step: int, num_steps: int, preview: Any) -> None:
                on_step(step, num_steps, preview)
                time.sleep(step_s)

            super().attend(slowly)

    ENGINES["swiftdiff"] = lambda config: SlowSystem()
    main.run(["serve-local", *sys.argv[2:]])
