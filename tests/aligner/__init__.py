"""A package, so that its conftest is another module than the root's."""
