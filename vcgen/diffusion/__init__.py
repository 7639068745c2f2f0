"""Diffusion priors over pictures, and the guidance that turns them into a training signal for fields. Knows nothing of fields."""
