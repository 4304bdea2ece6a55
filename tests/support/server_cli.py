"""Runs the real ``swiftdiff serve-local`` on a system whose steps wait for a file.

Usage: ``python server_cli.py FILE OPTIONS...``
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from http_server import StepSystem

from swiftdiff.cli import main
from swiftdiff.systems import ENGINES

if __name__ == "__main__":
    gate = Path(sys.argv[1])

    class GatedSystem(StepSystem):
        def attend(self, on_step: Any) -> None:
            def wait(step: int, num_steps: int, preview: Any) -> None:
                on_step(step, num_steps, preview)
                while not gate.exists():
                    time.sleep(0.02)
                    on_step(step, num_steps, preview)  # raises when nobody waits for the pictures

            super().attend(wait)

    ENGINES["swiftdiff"] = lambda config: GatedSystem()
    main.run(["serve-local", *sys.argv[2:]])
