"""Meshes made by code."""
