"""A text becomes a scene."""
