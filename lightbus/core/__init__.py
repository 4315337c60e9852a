"""The pure core: values and decisions. No socket, thread, clock or random number lives here."""
