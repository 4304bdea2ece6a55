"""Denoising, with what stock diffusers does in series taken apart and put on lanes."""
