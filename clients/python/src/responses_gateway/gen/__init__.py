"""Generated messages of responses.gateway.v1."""
