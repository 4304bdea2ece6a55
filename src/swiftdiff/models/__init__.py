"""Models: what may be named as one, where its files are, and how they become a stock SDXL pipeline.

Importing this package, ``registry`` or ``integrity`` does not import torch, so listing and resolving are
quick; ``loading``, ``presets`` and ``lora_files`` do.
"""
