"""Pictures and tables of what was learned; needs the ``study`` or the ``train`` extra."""
