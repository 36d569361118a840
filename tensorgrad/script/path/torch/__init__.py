"""Stands for ``torch`` in a process whose path names this folder: the children of ``tensorgrad run``."""

from tensorgrad.script import alias

alias.install()
