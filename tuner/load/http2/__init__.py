"""gRPC over HTTP/2 by hand: both ends of unary calls, with the least work for each request."""
