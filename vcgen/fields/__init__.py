"""Density and color at points."""
