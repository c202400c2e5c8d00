# syntax=docker/dockerfile:1
# scripts/docker-steps.ts runs these steps where there is no container engine: keep to the instructions it knows.

FROM node:24.22.3-trixie-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
COPY tools ./tools
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY src ./src
COPY console ./console
COPY scripts/build-console.ts ./scripts/build-console.ts
COPY scripts/bundle.ts ./scripts/bundle.ts
RUN npm run build
# The Node of the image is the one that the tests run on: pinned in tools/node-runtime, its hash in the lockfile.
RUN cp -L node_modules/.bin/node node

FROM node:24.22.3-trixie-slim AS dependencies
WORKDIR /dependencies
COPY package.json package-lock.json .npmrc ./
COPY tools ./tools
# The optional one is a Node for development machines.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

# What HEALTHCHECK runs, since there is no shell in the image and a Node each time costs too much; see docs/operations.md.
FROM golang:1.26.8-trixie AS healthcheck
WORKDIR /healthcheck
COPY tools/healthcheck ./
RUN CGO_ENABLED=0 go build -ldflags='-s -w' -o healthcheck .

# Debian 13 with the C++ runtime and certificates, and nothing else: no Node of its own that could fall behind.
FROM gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2 AS program
COPY --from=build /build/node /nodejs/bin/node
WORKDIR /app
COPY --from=dependencies /dependencies/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY package.json config.schema.json LICENSE NOTICE ./
COPY proto ./proto
ENV NODE_ENV=production
USER 65532:65532
STOPSIGNAL SIGTERM

# The upstream simulator alone: docker build --target simulator .
FROM program AS simulator
EXPOSE 8765
ENTRYPOINT ["/nodejs/bin/node", "--disable-proto=delete", "/app/dist/main.js"]
CMD ["simulate", "--listen", "0.0.0.0:8765"]

FROM program AS gateway
COPY --from=healthcheck /healthcheck/healthcheck /usr/bin/healthcheck
ENV RESPONSES_GATEWAY_LISTEN=0.0.0.0:50051
ENV RESPONSES_GATEWAY_ADMIN_LISTEN=0.0.0.0:9464
EXPOSE 50051 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/bin/healthcheck"]
# The second flag saves a third of what 10,000 idle sessions take; see docs/performance.md. The third gives the heap its
# share of the container's memory: by itself Node takes a half, and what is outside of the heap needs the rest.
ENTRYPOINT ["/nodejs/bin/node", "--disable-proto=delete", "--max-semi-space-size=16", "--max-old-space-size-percentage=60", "/app/dist/main.js"]
CMD ["serve"]
