"""The founding document, held: see ``test_seed.py``."""

import pytest

pytest.register_assert_rewrite("tests.seed.runs")
