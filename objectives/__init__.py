"""Objectives: thin modules that tie a trial to objective values; put your own beside them.

A module here has ``open(space, options, note)``: a context manager that gives an evaluator
(``tuner.study.Evaluator``) with ``environment`` and ``calibrate``; see ``serving.py``.
"""
