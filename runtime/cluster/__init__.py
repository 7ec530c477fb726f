"""Many files on many machines: captions of a corpus, by workers on a Ray cluster."""
