"""The backend's HTTP endpoint."""
