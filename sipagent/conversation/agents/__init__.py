"""Brains: from what was heard to what is said."""
