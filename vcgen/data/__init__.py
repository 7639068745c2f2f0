"""From files of others to batches of posed views."""
