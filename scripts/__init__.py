"""What the Makefile runs besides tests: the matrix of versions, and the mutants."""
