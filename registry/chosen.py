"""Which version of a registered model a command means."""

from clinprompt.errors import InputMissing
from registry import tracking
from registry.versions import CHAMPION, Version, as_number, by_alias, by_number, check_name, require


def chosen(name: str, which: int | str | None = None) -> Version:
    """The version with a number, or that carries an alias; by default the champion.

    Args:
        which: a number, also as text, or an alias.

    Raises:
        BadParams: no model can have this name, or the number is none.
        InputMissing: there is no such version.
        ServiceDown: the MLflow server does not answer.
    """
    check_name(name)
    which = CHAMPION if which is None else which
    if not isinstance(which, str) or which.isnumeric():  # of whichever script: no alias is meant
        number = as_number(which)
        require(name)
        return by_number(tracking.connect(), name, number)
    version = by_alias(name, which)
    if version is None:
        raise InputMissing(f"No version of {name!r} carries the alias {which!r} at {tracking.shown_uri()}.")
    return version
