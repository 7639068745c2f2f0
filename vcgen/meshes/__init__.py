"""Mesh files of others: loading, materials, light, views."""
