#!/bin/sh
# rate-limiter-flexible 11.4.0, in memory: a window of thirty days is forgotten at once. Its timer is a setTimeout of more
# than 2^31 ms, which Node (24) shortens to 1 ms with a warning; the key is deleted, and a limit by the month never holds.
# The same window over Redis holds: the server keeps the time there.
#
# Seen: "day: 6 used", "month: null used".
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --no-audit --no-fund rate-limiter-flexible@11.4.0 >/dev/null
cat > try.cjs <<'JS'
const { RateLimiterMemory } = require('rate-limiter-flexible');
const DAY = 86_400;
(async () => {
  for (const [name, duration] of [['day', DAY], ['month', 30 * DAY]]) {
    const limiter = new RateLimiterMemory({ points: 10, duration });
    await limiter.consume('tenant', 6);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const known = await limiter.get('tenant');
    console.log(`${name}: ${known === null ? null : known.consumedPoints} used`);
  }
})();
JS
node try.cjs 2>/dev/null | tee seen.txt
printf 'day: 6 used\nmonth: null used\n' | cmp - seen.txt
