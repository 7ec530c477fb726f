"""OpenAI's Realtime protocol over a WebSocket: transcription sessions, and conversations answered in text."""
