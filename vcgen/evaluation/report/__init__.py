"""Results as Markdown and HTML."""
