"""The error that a command shows to its user as one sentence, without a traceback."""


class UserError(Exception):
    """Input or environment that the user can put right; the message names the cause and the remedy."""
