"""Topologies as generators, driven by scripted servers: no sockets, milliseconds."""
