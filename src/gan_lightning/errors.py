"""The one exception that the entry points print as a single line instead of a stack trace."""


class UserError(Exception):
    """Something the user can put right: the message names the thing and says what would be right."""
