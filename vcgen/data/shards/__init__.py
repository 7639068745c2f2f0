"""Scenes in tar files with an index."""
