"""The parts of the scripted server: a model server whose every delay is known in advance."""
