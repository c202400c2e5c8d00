#!/bin/sh
# debian-package.sh PROGRAM PACKAGE...: installs the packages from Debian unless the program is there. Exit code 1, with a
# sentence, if it is not there afterwards. Services of the packages are not started.
set -u
program=$1
shift
PATH=$PATH:/usr/sbin
command -v "$program" && exit 0
root=
[ "$(id -u)" = 0 ] || root='sudo -n -E'
if command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  install="$root apt-get install -y --no-install-recommends"
  { $install "$@" || { $root apt-get update && $install "$@"; }; } >/dev/null
fi
command -v "$program" || { echo "found no $program; install it (Debian: $*)" >&2; exit 1; }
