"""The training of demo-salm."""
