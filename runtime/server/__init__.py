"""The server: one opened bundle for many clients, over HTTP and WebSockets, in the protocols that programs speak."""
