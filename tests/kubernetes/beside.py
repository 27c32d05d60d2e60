"""A module of the project, which travels with it."""

WORD = "carried"
