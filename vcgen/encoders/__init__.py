"""From posed views to a scene."""
