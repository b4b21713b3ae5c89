"""Requests to servers that somebody named: where they may lead, how long they may take and how much they may answer."""
