"""Serves traces of text-to-image requests with ControlNets and LoRAs and shows what each part costs."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
