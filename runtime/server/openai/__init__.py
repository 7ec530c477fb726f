"""OpenAI's API: transcriptions, translations, chat with sound, models."""
