"""What the pages and docstrings say is true: their code runs, their lists are complete."""
