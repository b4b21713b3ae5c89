"""Calls' audio to applications and back: three dialects, one stream."""
