import type { ResponseFlags } from '../wire/access_log.ts';

/** Envoy's short names of what is set, separated by commas, in the order of their numbers. */
export function formatFlags(flags: ResponseFlags | undefined): string {
  if (flags === undefined) return '';
  const set = names.filter(([field]) => isSet(flags[field]));
  return set.map(([, name]) => name).join(',');
}

function isSet(flag: boolean | object | undefined): boolean {
  return flag !== undefined && flag !== false;
}

// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/advanced/substitution_formatter#config-access-log-format-response-flags
const names: readonly (readonly [keyof ResponseFlags, string])[] = [
  ['failedLocalHealthcheck', 'LH'],
  ['noHealthyUpstream', 'UH'],
  ['upstreamRequestTimeout', 'UT'],
  ['localReset', 'LR'],
  ['upstreamRemoteReset', 'UR'],
  ['upstreamConnectionFailure', 'UF'],
  ['upstreamConnectionTermination', 'UC'],
  ['upstreamOverflow', 'UO'],
  ['noRouteFound', 'NR'],
  ['delayInjected', 'DI'],
  ['faultInjected', 'FI'],
  ['rateLimited', 'RL'],
  ['unauthorizedDetails', 'UAEX'],
  ['rateLimitServiceError', 'RLSE'],
  ['downstreamConnectionTermination', 'DC'],
  ['upstreamRetryLimitExceeded', 'URX'],
  ['streamIdleTimeout', 'SI'],
  ['invalidEnvoyRequestHeaders', 'IH'],
  ['downstreamProtocolError', 'DPE'],
  ['upstreamMaxStreamDurationReached', 'UMSDR'],
  ['responseFromCacheFilter', 'RFCF'],
  ['noFilterConfigFound', 'NFCF'],
  ['durationTimeout', 'DT'],
  ['upstreamProtocolError', 'UPE'],
  ['noClusterFound', 'NC'],
  ['overloadManager', 'OM'],
  ['dnsResolutionFailure', 'DF'],
  ['downstreamRemoteReset', 'DR'],
];
