import { encodeRbac, type RawPolicy } from '../authz/istio-rbac.ts';
import type { KeyPair } from '../harness/openssl-pki.ts';

const type = (name: string) => `type.googleapis.com/envoy.${name}`;

/** Where an Envoy listens, and what it enforces there. */
export type Setting = {
  readonly admin: string;
  readonly ofTrees: number;
  readonly ofIstio: number;
  readonly routes: string;
  readonly worlds: readonly (readonly RawPolicy[])[];
  readonly ca: string;
  readonly pairs: readonly KeyPair[];
};

function tlsOf({ ca, pairs: [server] }: Pick<Setting, 'ca' | 'pairs'>): object {
  const inline = (text = '') => ({ inline_string: text });
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': type('extensions.transport_sockets.tls.v3.DownstreamTlsContext'),
      // Callers without one come too.
      require_client_certificate: false,
      common_tls_context: {
        tls_certificates: [{ certificate_chain: inline(server?.cert), private_key: inline(server?.key) }],
        validation_context: { trusted_ca: inline(ca) },
      },
    },
  };
}

// Nobody is there: whoever asks gets an answer of its own.
const authzCluster = () => ({
  name: 'authz',
  type: 'STATIC',
  connect_timeout: '1s',
  typed_extension_protocol_options: http2,
});

/** A listener that gives back the bytes of whoever the tree lets in. */
export function tcpBootstrap({
  admin,
  port,
  policy,
  ...pki
}: Pick<Setting, 'admin' | 'ca' | 'pairs'> & { readonly port: number; readonly policy: string }): object {
  const rbacType = type('extensions.filters.network.rbac.v3.RBAC');
  const filters = [
    {
      name: 'tcp-policy',
      config_discovery: {
        config_source: { path_config_source: { path: policy }, resource_api_version: 'V3' },
        type_urls: [rbacType],
      },
    },
    {
      name: 'envoy.filters.network.ext_authz',
      typed_config: {
        '@type': type('extensions.filters.network.ext_authz.v3.ExtAuthz'),
        stat_prefix: 'asked',
        transport_api_version: 'V3',
        grpc_service: { envoy_grpc: { cluster_name: 'authz' }, timeout: '1s' },
        filter_enabled_metadata: notAllowed('envoy.filters.network.rbac', 'shadow_effective_policy_id'),
      },
    },
    {
      name: 'envoy.filters.network.echo',
      typed_config: { '@type': type('extensions.filters.network.echo.v3.Echo') },
    },
  ];
  const address = { socket_address: { address: '127.0.0.1', port_value: port } };
  return {
    node: { id: 'policy-tree', cluster: 'policy-tree' },
    admin: { address: { pipe: { path: admin } } },
    static_resources: {
      listeners: [{ name: 'tcp', address, filter_chains: [{ transport_socket: tlsOf(pki), filters }] }],
      clusters: [authzCluster()],
    },
  };
}

/** Whether RBAC has come to anything but a leaf that allows. */
function notAllowed(filter: string, key: string): object {
  return { filter, path: [{ key }], value: { string_match: { prefix: 'allow:' } }, invert: true };
}

/**
 * A listener with the trees alone, to which the caller says in a line of the PROXY protocol at which port it called: so any
 * port can be called.
 */
export function anyPortBootstrap({
  admin,
  port,
  routes,
  ...pki
}: Pick<Setting, 'admin' | 'routes' | 'ca' | 'pairs'> & { readonly port: number }): object {
  const name = 'envoy.filters.listener.proxy_protocol';
  const proxyProtocol = { '@type': type('extensions.filters.listener.proxy_protocol.v3.ProxyProtocol') };
  const address = { socket_address: { address: '127.0.0.1', port_value: port } };
  const filter_chains = [{ transport_socket: tlsOf(pki), filters: [treeManager(routes)] }];
  const listener_filters = [{ name, typed_config: proxyProtocol }];
  return {
    node: { id: 'policy-tree', cluster: 'policy-tree' },
    admin: { address: { pipe: { path: admin } } },
    static_resources: {
      listeners: [{ name: 'trees', address, listener_filters, filter_chains }],
      clusters: [authzCluster()],
    },
  };
}

function treeManager(routes: string): object {
  const rds = { route_config_name: 'trees', config_source: { path_config_source: { path: routes } } };
  return connectionManager('trees', { rds }, [rbac('envoy.filters.http.rbac', denyAll), extAuthz]);
}

/** A listener with the trees and one with Istio’s encoding, each with a route for each set of policies. */
export function bootstrap({ admin, ofTrees, ofIstio, routes, worlds, ...pki }: Setting): object {
  const transport_socket = tlsOf(pki);
  const listener = (name: string, port: number, manager: object) => ({
    name,
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [{ transport_socket, filters: [manager] }],
  });
  const istio = ['rbac.DENY', 'rbac.ALLOW'].map((name) => rbac(name, {}));
  return {
    node: { id: 'policy-tree', cluster: 'policy-tree' },
    admin: { address: { pipe: { path: admin } } },
    static_resources: {
      listeners: [
        listener('trees', ofTrees, treeManager(routes)),
        listener('istio', ofIstio, connectionManager('istio', { route_config: istioRoutes(worlds) }, istio)),
      ],
      clusters: [authzCluster()],
    },
  };
}

function connectionManager(name: string, routing: object, filters: readonly object[]): object {
  const format = '%RESPONSE_CODE_DETAILS%\n%REQ(:METHOD)%\n%REQ(:AUTHORITY)%\n%REQ(:PATH)%';
  return {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': type('extensions.filters.network.http_connection_manager.v3.HttpConnectionManager'),
      stat_prefix: name,
      // As in the configuration that `envoy bootstrap` makes.
      ...{ normalize_path: true, merge_slashes: true, path_with_escaped_slashes_action: 'REJECT_REQUEST' },
      local_reply_config: { body_format: { text_format_source: { inline_string: format } } },
      http_filters: [
        ...filters,
        {
          name: 'envoy.filters.http.router',
          typed_config: { '@type': type('extensions.filters.http.router.v3.Router') },
        },
      ],
      ...routing,
    },
  };
}

function rbac(name: string, more: object): object {
  return { name, typed_config: { '@type': type('extensions.filters.http.rbac.v3.RBAC'), ...more } };
}

const denyAll = { rules: { action: 'ALLOW', policies: {} } };

const extAuthz = {
  name: 'envoy.filters.http.ext_authz',
  typed_config: {
    '@type': type('extensions.filters.http.ext_authz.v3.ExtAuthz'),
    transport_api_version: 'V3',
    grpc_service: { envoy_grpc: { cluster_name: 'authz' }, timeout: '1s' },
    failure_mode_allow: false,
    status_on_error: { code: 'ServiceUnavailable' },
    filter_enabled_metadata: notAllowed('envoy.filters.http.rbac', 'enforced_effective_policy_id'),
  },
};

const http2 = {
  'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
    '@type': type('extensions.upstreams.http.v3.HttpProtocolOptions'),
    explicit_http_config: { http2_protocol_options: {} },
  },
};

function istioRoutes(worlds: readonly (readonly RawPolicy[])[]): object {
  const routes = worlds.map((world, set) => ({
    match: { prefix: '/', headers: [{ name: 'x-set', string_match: { exact: String(set) } }] },
    direct_response: { status: 200 },
    typed_per_filter_config: Object.fromEntries(
      (['DENY', 'ALLOW'] as const).map((action) => {
        const rules = encodeRbac(world, action, ['td1']);
        const of = { '@type': type('extensions.filters.http.rbac.v3.RBACPerRoute') };
        return [`rbac.${action}`, { ...of, rbac: rules === null ? {} : { rules } }];
      }),
    ),
  }));
  return { virtual_hosts: [{ name: 'all', domains: ['*'], routes }] };
}
