"""One file a board."""

# In a checkout's root Python would find this folder under its bare name, as a second copy.
if not __name__.startswith("celosia."):
    raise ImportError(f"import celosia.{__name__}, not {__name__}")
