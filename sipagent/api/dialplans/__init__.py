"""Dialplans: what there is, whether a text is one, reading them again."""
