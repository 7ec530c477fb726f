"""Commands: words of the command line -> runs of the engine -> text."""
