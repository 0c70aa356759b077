"""Tests. With ``LEANMQ_TEST_LOOP=uvloop`` those of asyncio run on that event loop."""

import asyncio
import importlib
import os

LOOP = os.environ.get("LEANMQ_TEST_LOOP") or "asyncio"

if LOOP == "uvloop":
    asyncio.set_event_loop_policy(importlib.import_module(LOOP).EventLoopPolicy())
