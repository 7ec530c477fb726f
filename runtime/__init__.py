"""Bundle and audio in, words out."""
