"""Frames, authentication, and the client and server ends of a connection; standard-library sockets only."""
