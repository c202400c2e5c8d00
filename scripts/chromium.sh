#!/bin/sh
# Installs what the console's tests and screenshots need: Debian's Chromium, and a typeface.
set -eu
command -v chromium >/dev/null 2>&1 && exit 0
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends chromium fonts-inter fonts-dejavu-core >/dev/null
