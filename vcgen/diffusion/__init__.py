"""Diffusion priors over images, and the guidance that turns them into a training signal for fields. Knows nothing of
fields.
"""
