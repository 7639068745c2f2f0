"""Checkpoints and model folders: written, verified, read, and turned into objects."""
