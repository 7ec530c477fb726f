"""Grammars: the form of an answer, written in GBNF or as a JSON schema -> which tokens may come next."""
