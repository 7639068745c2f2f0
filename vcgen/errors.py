"""The one exception that reaches users as a single line."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do, in one line.

    ``vcgen`` prints it as ``vcgen: error: MESSAGE`` and exits with status 2, without a traceback.
    """
