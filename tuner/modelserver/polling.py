"""What both servers wait for on their epolls, and what they do without descriptors."""

from __future__ import annotations

import logging
import os
import select
import socket

ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
# Edges: an event says that something is new, and is not asked for again after every request.
EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

_LOG = logging.getLogger(__name__)


class Spare:
    """A descriptor to give up when there are no others left.

    Args:
        api: whose connections are turned away, for the one line in the log.
    """

    def __init__(self, api: str) -> None:
        self._api, self._told = api, False
        self._descriptor: int | None = None
        self.renew()

    def renew(self) -> None:
        """Have one again, where that can be."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return

    @property
    def missing(self) -> bool:
        """Whether there is none, so that connections may have been left waiting."""
        return self._descriptor is None

    def turn_away(self, listener: socket.socket) -> bool:
        """Close a connection that there is no descriptor for; whether there was one to close.

        One that stays in the backlog would wake the servers' threads without end.
        """
        if self._descriptor is None:
            return False
        os.close(self._descriptor)
        self._descriptor = None
        try:
            listener.accept()[0].close()
        except OSError:  # EMFILE is said even where nobody waits
            return False
        finally:
            self.renew()
        if not self._told:
            self._told = True
            _LOG.warning("Out of file descriptors: %s connections are turned away", self._api)
        return True
