"""What applications made for Twilio ask of its REST API."""
