"""Routers and placement: backends made of backends."""
