"""Plugins that tests ask for; pytest wants them named at the top."""

pytest_plugins = ["pytester"]
