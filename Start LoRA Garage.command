#!/bin/sh
# What a double-click on macOS opens.
exec "$(dirname -- "$0")/start.sh" "$@"
