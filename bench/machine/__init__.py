"""The machine's own limits: memory bandwidth, matrix products, timing."""
