"""``vcgen doctor``: what this computer offers a training, check by check, and how to mend what is missing."""
