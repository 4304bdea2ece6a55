"""Runs the real command line on a fake system that takes a while for each request: for tests of signals.

Usage: ``python slow_cli.py SECONDS_PER_REQUEST ARGUMENTS_OF_SWIFTDIFF...``
"""

from __future__ import annotations

import sys

from fakes import FakeSystem

from swiftdiff.cli import main
from swiftdiff.systems import ENGINES

if __name__ == "__main__":
    service_s = float(sys.argv[1])
    ENGINES["diffusers"] = lambda config: FakeSystem(service_s=service_s)
    main.run(sys.argv[2:])
