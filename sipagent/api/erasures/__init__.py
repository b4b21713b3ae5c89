"""Erasing what the record has of one caller."""
