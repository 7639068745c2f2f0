"""Losses, each with its reduction."""
