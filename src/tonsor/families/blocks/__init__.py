"""Blocks: whole layers that identity, or their own shortcut, can stand for."""
