import type { EnvoyPlan } from './envoy-bootstrap-options.ts';
import { askUnlessAllowed, foreignHeaders, policyFilter, verdictField } from './envoy-bootstrap-policy.ts';
import { reportLog } from './envoy-bootstrap-report.ts';
import { authzCluster, type Json, typed } from './envoy-bootstrap-tls.ts';

/** HTTP from other workloads: identity from their certificates, a decision for every request, then the application. */
export function inboundHttp(plan: EnvoyPlan, cluster: string): Json {
  return connectionManager(
    plan,
    'inbound',
    { cluster, timeout: '15s' },
    {
      // What a caller says about itself is dropped; what TLS proved about it is passed on.
      forward_client_cert_details: 'SANITIZE_SET',
      set_current_client_cert_details: { uri: true },
      use_remote_address: true,
      skip_xff_append: true,
      http_filters: [...foreignHeaders(plan), ...policyFilter(plan, 'http'), extAuthz(plan), router],
      access_log: [accessLog(plan, 'inbound', 'request'), ...reportLog(plan, 'inbound', 'request')],
    },
    // Envoy never looks at a peer's certificate again while a connection lives: this bounds what it misses.
    { max_connection_duration: `${plan.maxConnectionSeconds}s` },
  );
}

/**
 * HTTP from the workload itself to one peer. Its own connections live as long as it likes: they prove nothing that could
 * run out, and to end one under a client that is about to send would cost that client a request.
 */
export function outboundHttp(plan: EnvoyPlan, name: string, cluster: string): Json {
  // Only what has not reached the peer is sent again.
  const retry_policy = { retry_on: 'connect-failure,refused-stream,reset-before-request', num_retries: 2 };
  return connectionManager(plan, name, { cluster, timeout: '15s', retry_policy }, { http_filters: [router] });
}

/** Bytes, passed on as they are. */
export function tcpProxy(
  plan: EnvoyPlan,
  name: string,
  cluster: string,
  more: Record<string, Json> = {},
): Json {
  return {
    name: 'envoy.filters.network.tcp_proxy',
    typed_config: typed('extensions.filters.network.tcp_proxy.v3.TcpProxy', {
      stat_prefix: name,
      cluster,
      max_downstream_connection_duration: `${plan.maxConnectionSeconds}s`,
      ...more,
    }),
  };
}

/**
 * Bytes from other workloads: a decision for every connection, then the application. Envoy asks when the first byte
 * comes; until then the application is not connected, so that none of its own bytes leave before the decision.
 */
export function inboundTcp(plan: EnvoyPlan, name: string, cluster: string): readonly Json[] {
  const afterDecision = {
    upstream_connect_mode: 'ON_DOWNSTREAM_DATA',
    max_early_data_bytes: maxEarlyBytes,
  };
  return [...policyFilter(plan, 'tcp'), tcpAuthz(plan), tcpProxy(plan, name, cluster, afterDecision)];
}

const maxEarlyBytes = 16_384;

/**
 * The access log as JSON lines. On a listener it tells of connections, failed handshakes among them, which an HTTP log
 * never sees; on HTTP it tells of requests.
 */
export function accessLog(plan: EnvoyPlan, listener: string, of: 'connection' | 'request'): Json {
  const config = {
    log_format: {
      json_format: {
        listener,
        ...(of === 'request' ? requestFields : {}),
        ...(of === 'request' && plan.decide === 'in-proxy' ? { policy_leaf: verdictField } : {}),
        ...connectionFields,
      },
    },
  };
  if (plan.accessLog === 'stdout') {
    return {
      name: 'envoy.access_loggers.stdout',
      typed_config: typed('extensions.access_loggers.stream.v3.StdoutAccessLog', config),
    };
  }
  return {
    name: 'envoy.access_loggers.file',
    typed_config: typed('extensions.access_loggers.file.v3.FileAccessLog', {
      path: plan.accessLog.path,
      ...config,
    }),
  };
}

function connectionManager(
  plan: EnvoyPlan,
  name: string,
  route: Json,
  more: Record<string, Json>,
  connections: Record<string, Json> = {},
): Json {
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: typed('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager', {
      stat_prefix: name,
      codec_type: 'AUTO',
      ...pathRules,
      stream_idle_timeout: '300s',
      request_headers_timeout: '10s',
      common_http_protocol_options: {
        headers_with_underscores_action: 'REJECT_REQUEST',
        idle_timeout: '300s',
        ...connections,
      },
      http2_protocol_options: {
        max_concurrent_streams: 100,
        initial_stream_window_size: 65_536,
        initial_connection_window_size: 1_048_576,
      },
      access_log: [accessLog(plan, name, 'request')],
      route_config: {
        name,
        virtual_hosts: [{ name, domains: ['*'], routes: [{ match: { prefix: '/' }, route }] }],
      },
      ...more,
    }),
  };
}

// A policy about paths is as good as the path it sees: the proxy, the policy engine and the application must read the
// same one. What Envoy cannot normalise it refuses; what is still ambiguous the policy engine denies.
const pathRules = {
  normalize_path: true,
  merge_slashes: true,
  path_with_escaped_slashes_action: 'REJECT_REQUEST',
} as const;

function extAuthz(plan: EnvoyPlan): Json {
  return {
    name: 'envoy.filters.http.ext_authz',
    typed_config: typed('extensions.filters.http.ext_authz.v3.ExtAuthz', {
      stat_prefix: 'countersign',
      transport_api_version: 'V3',
      grpc_service: authzService(plan),
      failure_mode_allow: false,
      // The default, 403, could not be told apart from a denial.
      status_on_error: { code: 'ServiceUnavailable' },
      validate_mutations: true,
      include_peer_certificate: true,
      include_tls_session: true,
      // Header values as bytes: text would lose those that are not UTF-8.
      encode_raw_headers: true,
      ...askUnlessAllowed(plan, 'http'),
    }),
  };
}

function tcpAuthz(plan: EnvoyPlan): Json {
  return {
    name: 'envoy.filters.network.ext_authz',
    typed_config: typed('extensions.filters.network.ext_authz.v3.ExtAuthz', {
      stat_prefix: 'countersign_tcp',
      transport_api_version: 'V3',
      grpc_service: authzService(plan),
      failure_mode_allow: false,
      include_peer_certificate: true,
      include_tls_session: true,
      ...askUnlessAllowed(plan, 'tcp'),
    }),
  };
}

function authzService(plan: EnvoyPlan): Json {
  return {
    envoy_grpc: { cluster_name: authzCluster },
    timeout: `${plan.decisionTimeoutMs / 1_000}s`,
  };
}

const router: Json = {
  name: 'envoy.filters.http.router',
  typed_config: typed('extensions.filters.http.router.v3.Router'),
};

const requestFields = {
  method: '%REQ(:METHOD)%',
  authority: '%REQ(:AUTHORITY)%',
  // NQ: a query may hold secrets.
  path: '%PATH(NQ)%',
  protocol: '%PROTOCOL%',
  status: '%RESPONSE_CODE%',
  status_details: '%RESPONSE_CODE_DETAILS%',
  request_id: '%REQ(X-REQUEST-ID)%',
  decision_id: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision_id)%',
  decision_reason: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:reason)%',
  decision_rule: '%DYNAMIC_METADATA(envoy.filters.http.ext_authz:rule)%',
} as const;

const connectionFields = {
  start_time: '%START_TIME%',
  duration_ms: '%DURATION%',
  flags: '%RESPONSE_FLAGS%',
  peer: '%DOWNSTREAM_PEER_URI_SAN%',
  peer_serial: '%DOWNSTREAM_PEER_SERIAL%',
  remote_address: '%DOWNSTREAM_REMOTE_ADDRESS%',
  tls_failure: '%DOWNSTREAM_TRANSPORT_FAILURE_REASON%',
  upstream_cluster: '%UPSTREAM_CLUSTER%',
  upstream_address: '%UPSTREAM_HOST%',
  upstream_peer: '%UPSTREAM_PEER_URI_SAN%',
  upstream_failure: '%UPSTREAM_TRANSPORT_FAILURE_REASON%',
  bytes_received: '%BYTES_RECEIVED%',
  bytes_sent: '%BYTES_SENT%',
} as const;
