"""Checkpoints of Self-Forcing and CausVid, made into diffusers folders."""
