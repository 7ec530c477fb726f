"""Wyoming, the protocol of Home Assistant's voice services: speech to text, and answers or intents."""
