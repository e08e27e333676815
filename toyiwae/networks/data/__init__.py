"""Images to train on: which there are, where they come from, how they become zeros and ones."""
