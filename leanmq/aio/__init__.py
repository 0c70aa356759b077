"""The asyncio shells, exported from ``leanmq``. They start no threads."""
