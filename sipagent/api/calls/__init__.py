"""Calls and their record."""
