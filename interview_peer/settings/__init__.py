"""Every setting of the server: its name, its default and what it must be.

They are read once, at the start, into one frozen :class:`Settings`. A module for each subject has
its settings, what each must be, and which of them must be set together; ``model`` makes one of
them all, ``environment`` reads them, ``mistakes`` tells what is wrong. What a setting leads to is
decided elsewhere.
"""

from .environment import ENV_FILE, load_settings
from .model import Settings, env_name
from .values import is_loopback

__all__ = ["ENV_FILE", "Settings", "env_name", "is_loopback", "load_settings"]
