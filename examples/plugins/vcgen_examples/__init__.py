"""One new member of each kind for vcgen: an encoder with its field, a prior, a guidance, a format and a metric."""
