"""Runs the real command line on a fake system that comes to a stop: for tests of signals.

Usage: ``python slow_cli.py REQUESTS ARGUMENTS_OF_SWIFTDIFF...``: so many are served, the next one never is.
"""

from __future__ import annotations

import sys
import time

from fakes import FakeSystem

from swiftdiff.cli import main
from swiftdiff.request import ImageRequest
from swiftdiff.systems import ENGINES

if __name__ == "__main__":
    num_served = int(sys.argv[1])

    def stop(request: ImageRequest) -> None:
        if len(system.served) == num_served:
            time.sleep(3600)

    system = FakeSystem(service_s=0.001, before=stop)
    ENGINES["diffusers"] = lambda config: system
    main.run(sys.argv[2:])
