"""One photo becomes a scene."""
