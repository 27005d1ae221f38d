"""An OpenAI Realtime endpoint of our own: HTTP, ICE, DTLS, Opus and events, reached by URL."""
