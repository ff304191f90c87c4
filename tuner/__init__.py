"""tuner: find how to run a model server, by latency and by energy."""

__version__ = "0.1.0"
