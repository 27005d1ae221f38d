"""What runs beside the server inside its image: the health check, and the way in as root."""
