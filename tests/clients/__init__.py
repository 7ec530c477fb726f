"""The server, asked by other people's programs as they are."""
