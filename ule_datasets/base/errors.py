"""The exception type that the command line turns into a message and exit code 2."""


class InputError(ValueError):
    """Something the caller gave is wrong.

    The message is complete on its own: what was given, what is allowed, what to do next. It is one line, or several
    given one by one: a line's end in text from elsewhere starts none.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UnusableImagesError(InputError):
    """Some images of a source cannot be used; the others are decoded, which is worth keeping.

    The same command may be told to leave those out that cannot.
    """
