"""Requests from real data sets, as rows in a model's signature."""

from tuner.workloads.requests import requests_file

__all__ = ["requests_file"]
