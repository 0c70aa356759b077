"""The test servers do what the contract relies on: they fail as ordered, and heal."""
