"""From a prior and renderings to a scene's training signal."""
