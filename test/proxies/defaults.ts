import type { ProxyName } from './proxy.ts';

/** What is written where nobody has read docs/proxies.md: enough to pass gRPC on, all limits as the proxy has them. */
export const DEFAULTS: Readonly<Record<ProxyName, string>> = {
  nginx: `events {}
http {
  upstream gateways { server 127.0.0.1:GATEWAY_1; server 127.0.0.1:GATEWAY_2; }
  server {
    listen PORT;
    http2 on;
    location / { grpc_pass grpc://gateways; }
  }
}
`,
  // It has no time-outs of its own; these are in most examples.
  haproxy: `defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend grpc
  bind :PORT proto h2
  default_backend gateways
backend gateways
  server a 127.0.0.1:GATEWAY_1 proto h2
  server b 127.0.0.1:GATEWAY_2 proto h2
`,
  envoy: `admin: { address: { socket_address: { address: 127.0.0.1, port_value: ADMIN_PORT } } }
static_resources:
  listeners:
    - address: { socket_address: { address: 127.0.0.1, port_value: PORT } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: grpc
                codec_type: AUTO
                route_config:
                  virtual_hosts:
                    - { name: all, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: gateways } }] }
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
    - name: gateways
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }
      load_assignment:
        cluster_name: gateways
        endpoints:
          - lb_endpoints:
              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: GATEWAY_1 } } }
              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: GATEWAY_2 } } }
`,
  // h2c has to be asked for, or there is no gRPC without TLS.
  caddy: `{
	servers {
		protocols h1 h2 h2c
	}
}
http://:PORT {
	reverse_proxy h2c://127.0.0.1:GATEWAY_1 h2c://127.0.0.1:GATEWAY_2
}
`,
  traefik: `entryPoints: { grpc: { address: ":PORT" } }
providers: { file: { filename: traefik-routes.yaml } }
`,
};
