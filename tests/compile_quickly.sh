#!/bin/sh
# The system's C++ compiler in a hurry: for tests of what cells compute, not of how fast or by which instructions.
exec c++ "$@" -O1 --param ggc-min-heapsize=2097152
