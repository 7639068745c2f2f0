"""A small CLIP model from captioned renders."""
