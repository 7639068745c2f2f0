"""Optimizers, averages of weights, and sharding."""
