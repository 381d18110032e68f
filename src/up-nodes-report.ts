import type { NodesReport } from './http/status-report.ts';
import type { AttestedNode } from './identity/node.ts';
import type { NodePresences } from './node/node-presence.ts';

/** The nodes in numbers. Those that were evicted, or whose certificate has ended, are expected of nothing. */
export function nodesReport(
  nodes: readonly AttestedNode[],
  presences: Pick<NodePresences, 'of'>,
  now: Date,
): NodesReport {
  const attested = nodes.filter(
    ({ evictedAt, serials, notAfter }) => evictedAt === null && serials.length > 0 && notAfter > now,
  );
  const seen = attested.map(({ name, renewedAt }) => {
    const { connected, behindSince, since } = presences.of(name);
    // Not seen since the start: its certificate was made when it was there last, at least.
    return { name, connected, behindSince: connected || since !== null ? behindSince : renewedAt };
  });
  const laggard = seen.reduce<NodesReport['laggard']>((first, { behindSince, ...node }) => {
    if (behindSince === null || (first !== null && first.behindSince <= behindSince)) return first;
    return { ...node, behindSince };
  }, null);
  return {
    attested: attested.length,
    connected: seen.filter(({ connected }) => connected).length,
    laggard,
  };
}
