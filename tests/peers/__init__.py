"""Real peers for the tests: SIPp, Kamailio, Asterisk, and the ports they listen on.

Each helper starts a program of its own in a folder of its own on 127.0.0.1, ends it by its process id, and fails with
one sentence and the line to type when the program is not installed.
"""


class PeerMissing(Exception):
    """A program the tests need is not installed; the sentence ends with the line to type."""
