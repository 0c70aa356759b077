"""A small shop on LeanMQ, and ten seconds of its day: what ``leanmq demo`` runs.

``shop.py`` is the application, written as yours might be; the day is in ``plan.py`` (what is
ordered) and ``day.py`` (who does what when), and ``summary.py`` reads back what became of it.
"""
