"""The page on which the API can be looked through and tried."""
