"""The version of the package, read by the build and by ``leanmq.__version__``."""

__version__ = "0.3.0.dev0"
