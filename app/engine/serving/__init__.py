"""Requests over the Unix socket: admission, queue, scheduler, answers."""
