"""Nodes that share a database, and draining them."""
