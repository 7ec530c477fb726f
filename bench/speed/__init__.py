"""Stages timed, forecast and fitted to a device."""
