__version__ = "0.1.0"


def __getattr__(name):
    "`import mplt` loads nothing; `mplt.ticket`, or another chapter, is loaded when it is named"
    from importlib import import_module

    try:
        return import_module(f"mplt.{name}")
    except ModuleNotFoundError as e:
        if e.name != f"mplt.{name}":  # the chapter is there, and lacks something
            raise
        raise AttributeError(f"module 'mplt' has no attribute {name!r}") from None
