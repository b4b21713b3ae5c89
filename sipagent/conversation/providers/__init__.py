"""Providers of recognition, language and speech: one file a vendor."""
