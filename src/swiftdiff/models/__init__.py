"""Models: what may be named as one, where its files are, and how they become a stock SDXL pipeline.

Importing ``registry``, ``integrity``, ``family`` or ``loading`` does not import torch, so that naming and
listing models is quick; only their functions that make or load weights do.
"""
