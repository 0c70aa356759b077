"""Real Redis servers for the tests, and the means to break them.

Nothing here knows LeanMQ: ``running.get`` gives a running topology, ``servers`` says what a
topology can suffer, ``proxy`` is the wire between a client and a server.
"""
