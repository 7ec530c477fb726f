"""Events -> terminal, subtitles, transcripts."""
