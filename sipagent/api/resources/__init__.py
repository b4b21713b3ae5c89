"""Resources: voice apps, numbers, trunks, lists of addresses, secrets."""
