"""What Prometheus reads: the collector of the server's figures, and the port that serves them."""
