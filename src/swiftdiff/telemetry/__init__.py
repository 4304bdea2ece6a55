"""Telemetry: how long each stage took, how much memory was used, and on what machine."""
