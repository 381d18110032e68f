import type { Clock } from '../clock.ts';
import type { AttestedNode } from '../identity/node.ts';
import type { ViewPort } from './view-stream.ts';

/** Whether a SPIFFE ID is that of an entry of a node, or was until lately. */
export type OwnIdentities = (node: AttestedNode) => (spiffeId: string) => boolean;

/**
 * Knows which workloads a node may speak of. What was seen to be one of its own counts for another day: what it decided
 * while it was cut off is told of afterwards, when the entry may be gone.
 */
export function createOwnIdentities(current: ViewPort['current'], clock: Clock): OwnIdentities {
  const seenAtMs = new Map<string, Map<string, number>>();
  return (node) => {
    let own: ReadonlySet<string> | undefined;
    return (spiffeId) => {
      own ??= new Set([...current(node).mesh.entries.values()].map((entry) => entry.spiffeId.text));
      const seen = seenAtMs.get(node.name) ?? new Map<string, number>();
      const nowMs = clock.now().getTime();
      if (own.has(spiffeId)) {
        // Last in the map is what was seen last.
        seen.delete(spiffeId);
        seen.set(spiffeId, nowMs);
        seenAtMs.set(node.name, seen);
        for (const [oldest] of seen) {
          if (seen.size <= own.size + maxFormer) break;
          seen.delete(oldest);
        }
        return true;
      }
      const atMs = seen.get(spiffeId);
      return atMs !== undefined && Math.abs(nowMs - atMs) <= rememberMs;
    };
  };
}

const rememberMs = 86_400_000;
const maxFormer = 1_024;
