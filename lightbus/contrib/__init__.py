"""Lightbus beside other libraries: one module each, loaded only by those who use that library."""
