"""What commands need of an installation: of this machine's, or of one elsewhere by its HTTP API."""
