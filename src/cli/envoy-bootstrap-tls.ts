import type { SpiffeId } from '../spiffe/id.ts';
import type { XdsForm } from './envoy-bootstrap-options.ts';

/** A value of JSON, which is all that YAML is used for here. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** The cluster over which certificates come. */
export const identityCluster = 'countersign_identity';
/** The cluster over which decisions are asked for: a connection of its own, even to the same socket. */
export const authzCluster = 'countersign_authz';

/** The type URL of an Envoy extension's configuration. */
export function typed(name: string, config: Record<string, Json> = {}): Record<string, Json> {
  return { '@type': `type.googleapis.com/envoy.${name}`, ...config };
}

/** mTLS towards callers: a certificate of our own trust domain is demanded, TLS 1.3 only, no resumption. */
export function downstreamTls({ workload, xds }: TlsPlan, alpn: readonly string[]): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: typed('extensions.transport_sockets.tls.v3.DownstreamTlsContext', {
      // Without it Envoy lets callers in that present no certificate.
      require_client_certificate: true,
      // A resumed session is not verified again: every connection proves its peer anew.
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
      // The slash keeps spiffe://example.org.evil/ out.
      common_tls_context: commonTls(workload, xds, alpn, { prefix: `${workload.trustDomain.id}/` }),
    }),
  };
}

/** mTLS towards one peer, pinned to exactly its identity. */
export function upstreamTls({ workload, xds }: TlsPlan, peer: SpiffeId, alpn: readonly string[]): Json {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: typed('extensions.transport_sockets.tls.v3.UpstreamTlsContext', {
      max_session_keys: 0,
      // Envoy loads the clusters of a bootstrap before its aggregated stream, and crashes when one of them wants a secret
      // from there (envoy issue 15517): they have a stream for each.
      common_tls_context: commonTls(workload, { ...xds, isAggregated: false }, alpn, { exact: peer.text }),
    }),
  };
}

/** Where a proxy that asks for everything over one stream finds it; undefined when it opens a stream for each secret. */
export function adsConfig({ xds }: TlsPlan): Json | undefined {
  return xds.isAggregated ? apiConfig(xds) : undefined;
}

type TlsPlan = { readonly workload: SpiffeId; readonly xds: XdsForm };

function commonTls(
  workload: SpiffeId,
  xds: XdsForm,
  alpn: readonly string[],
  san: Record<string, string>,
): Json {
  return {
    tls_params: { tls_minimum_protocol_version: 'TLSv1_3', tls_maximum_protocol_version: 'TLSv1_3' },
    ...(alpn.length === 0 ? {} : { alpn_protocols: alpn }),
    // Asked for by name, so that a process entitled to several identities gets the one its proxy stands for.
    tls_certificate_sds_secret_configs: [secret(workload.text, xds)],
    combined_validation_context: {
      default_validation_context: { match_typed_subject_alt_names: [{ san_type: 'URI', matcher: san }] },
      validation_context_sds_secret_config: secret('ROOTCA', xds),
    },
  };
}

/**
 * INVARIANT: the same bytes wherever a name is used, by listeners and by clusters. Envoy takes a secret with another configuration for another
 * subscription, and one that changes for a name in use never gets its secret (envoy issue 47309).
 */
function secret(name: string, xds: XdsForm): Json {
  return {
    name,
    sds_config: {
      resource_api_version: 'V3',
      // Wait for ever: a port without its certificate never opens.
      initial_fetch_timeout: '0s',
      ...(xds.isAggregated ? { ads: {} } : { api_config_source: apiConfig(xds) }),
    },
  };
}

/** A stream of its own, to the authority. */
export function apiConfig({ isDelta }: XdsForm): Json {
  return {
    api_type: isDelta ? 'DELTA_GRPC' : 'GRPC',
    transport_api_version: 'V3',
    set_node_on_first_message_only: true,
    grpc_services: [
      {
        envoy_grpc: {
          cluster_name: identityCluster,
          // Envoy's own back-off grows to 30 s, which is longer than anybody wants to wait for an authority that is back.
          retry_policy: { retry_back_off: { base_interval: '0.25s', max_interval: '2s' } },
        },
      },
    ],
  };
}
