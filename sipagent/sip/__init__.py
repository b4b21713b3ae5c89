"""Signalling: the lane process (PJSIP), the messages between it and main, SDP, registration."""
