"""Faults at random, for as long as one likes, under producers and consumers; see ``__main__``."""
