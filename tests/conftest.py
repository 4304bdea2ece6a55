"""What all tests share: no network, and property tests that neither depend on the clock nor on chance."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that asks a model hub is a mistake: let it fail at once
# A shell ignores Ctrl-C for what it runs in the background, and processes hand that on to those they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile(
    "swiftdiff",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],  # it goes by the clock
)
settings.load_profile("swiftdiff")

pytest_plugins = ["shared_fixtures"]  # tests/support is on the path: see pyproject.toml
