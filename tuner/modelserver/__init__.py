"""The embedded model server: TensorFlow Serving's flags and APIs in a process of its own.

It imports nothing else of tuner. ``python -m tuner.modelserver --model_name=m
--model_base_path=DIR`` serves; ``python -m tuner.modelserver.forkserver`` starts servers quickly.
"""
