"""Which processes of this machine serve an address, so that their work isn't taken for others'."""

from __future__ import annotations

import socket

import psutil

RELAYS = ("docker-proxy", "rootlessport", "slirp4netns")
"""Programs that listen in the place of a server in a container, whose processes they aren't."""


def server_pids(address: str) -> tuple[int, ...] | None:
    """Ids of the processes that listen at ``host:port`` or ``unix:path``.

    Returns:
        Nothing for an address of another machine; ``None`` where it is this one, but who listens
        there can't be seen (another user's process, a container behind a relay).
    """
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:").removeprefix("//")
            held = [c.pid for c in psutil.net_connections("unix") if c.laddr == path]
        else:
            host, _, port = address.rpartition(":")
            if not _is_here(host.strip("[]")):
                return ()
            held = [
                c.pid for c in psutil.net_connections("tcp")
                if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == int(port)
            ]
        pids = tuple(sorted({pid for pid in held if pid}))
        relayed = any(psutil.Process(pid).name() in RELAYS for pid in pids)
    except (psutil.Error, OSError, ValueError):
        return None
    return None if relayed or not pids else pids


def _is_here(host: str) -> bool:
    """Whether a host's name or address is this machine's. Raises OSError where nobody knows it."""
    own = {each.address.partition("%")[0] for card in psutil.net_if_addrs().values() for each in card}
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    return any(one in own or one.startswith("127.") or one in ("::1", "0.0.0.0", "::")
               for one in found)
