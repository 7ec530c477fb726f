"""Live audio: chunks -> speech gate -> segments -> caption events."""
