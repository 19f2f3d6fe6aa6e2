"The command `mplt`, and `python -m mplt`: Ctrl-C ends in a sentence while it is still loading, too"

import sys


def main() -> int:  # Exit status
    try:
        from mplt.command import main

        return main()
    except KeyboardInterrupt:
        print("mplt: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
