"""The command line: parse, call one function, print."""

EXIT_INTERRUPTED = 130
