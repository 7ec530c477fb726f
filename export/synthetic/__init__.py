"""Full-size bundles of random weights, for speed and memory alone."""
