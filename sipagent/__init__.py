"""sipagent: a self-hosted SIP endpoint with a voice agent inside."""

__version__ = "0.1.0"
