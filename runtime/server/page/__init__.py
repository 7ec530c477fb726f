"""The web page of `auricle serve`: its files, its live socket, and viewers of what it hears."""
