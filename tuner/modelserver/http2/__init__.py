"""A gRPC transport for unary calls in one thread: what a call costs decides small models' speed."""
