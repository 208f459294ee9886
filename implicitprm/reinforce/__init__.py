"""Reinforcement learning with process rewards: RLOO, with PRIME's implicit rewards or without.

``terms`` has every term of the update as a pure function, ``loop`` the training loop. Beside the
core, which never imports it.
"""
