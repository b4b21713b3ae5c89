"""Steering calls that are up."""
