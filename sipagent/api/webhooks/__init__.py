"""Webhooks: what was sent, what was not, and sending it again."""
