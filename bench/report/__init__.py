"""Results -> tables, charts, one HTML page."""
