"""Scenes as others store them."""
