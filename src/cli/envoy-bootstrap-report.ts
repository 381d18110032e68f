import type { EnvoyPlan } from './envoy-bootstrap-options.ts';
import { type Json, typed } from './envoy-bootstrap-tls.ts';

/** The cluster over which proxies tell what they saw: a flood of it delays neither a certificate nor a decision. */
export const reportCluster = 'countersign_access_log';

/** Whether any listener of the plan tells the audit log what it sees: those that other workloads reach do. */
export function reports({ accessLogStream, inbound, inboundTcp }: EnvoyPlan): boolean {
  return accessLogStream && (inbound !== null || inboundTcp.length > 0);
}

/**
 * What a listener for peers tells over gRPC, when they are over: connections, failed handshakes among them, or requests.
 */
export function reportLog(plan: EnvoyPlan, listener: string, of: 'connection' | 'request'): readonly Json[] {
  if (!plan.accessLogStream) return [];
  const common_config = {
    log_name: `${listener}_${of}`,
    transport_api_version: 'V3',
    grpc_service: { envoy_grpc: { cluster_name: reportCluster } },
    buffer_flush_interval: '1s',
    buffer_size_bytes: 16_384,
    // Envoy's own fields have the names in a peer's certificate and not its number.
    custom_tags: [{ tag: peerSerialTag, value: '%DOWNSTREAM_PEER_SERIAL%' }],
  };
  const kind = of === 'request' ? 'Http' : 'Tcp';
  return [
    {
      name: `envoy.access_loggers.${kind.toLowerCase()}_grpc`,
      typed_config: typed(`extensions.access_loggers.grpc.v3.${kind}GrpcAccessLogConfig`, { common_config }),
    },
  ];
}

/**
 * What makes a proxy tell its counters, over the same cluster: how many calls its policy has judged. Access logs may lose some of
 * them, and counters say how many. Envoy has no way to tell a few of its counters alone; the agent leaves the others.
 */
export function counterSink(): Record<string, Json> {
  return {
    stats_flush_interval: '5s',
    stats_sinks: [
      {
        name: 'envoy.stat_sinks.metrics_service',
        typed_config: typed('config.metrics.v3.MetricsServiceConfig', {
          transport_api_version: 'V3',
          grpc_service: { envoy_grpc: { cluster_name: reportCluster } },
          // They are the most of the bytes, and nobody reads them.
          histogram_emit_mode: 'SUMMARY',
        }),
      },
    ],
  };
}

/** Of a proxy that decides by itself, and tells what it sees: how much it tells nobody else can say. */
export function tellCounters(plan: EnvoyPlan): Record<string, Json> {
  return plan.decide === 'in-proxy' && reports(plan) ? counterSink() : {};
}

/** As src/access-log reads it. */
const peerSerialTag = 'peer_serial';
