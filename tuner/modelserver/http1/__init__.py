"""HTTP/1 for the REST API: heads and bodies read by libevent's rules, many threads on one epoll."""
