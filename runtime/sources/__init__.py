"""Sources of live audio: microphone, file, standard input -> chunks with times."""
