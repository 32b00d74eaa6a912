"""What `reports` says when it refuses a request."""


class ReportError(Exception):
    """A report that cannot be made. The message names the value, the limit and the cure."""
