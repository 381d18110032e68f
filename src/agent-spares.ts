import type { Clock } from './clock.ts';
import type { X509Svid } from './identity/credentials.ts';
import type { RegistrationEntry } from './identity/entry.ts';
import type { AgentState } from './node/agent-cache.ts';

/** Certificates that nobody holds at the moment and that are still good: their workloads may come back, the server not. */
export type Spares = {
  /** Takes the certificate of an entry out, if it was made for the entry as it is now. */
  readonly take: (entry: RegistrationEntry) => X509Svid | undefined;
  readonly put: (svid: X509Svid, entry: RegistrationEntry) => void;
  /** Those of entries there still are; whatever else there was is gone. */
  readonly keep: (entries: ReadonlyMap<string, RegistrationEntry>) => readonly X509Svid[];
};

/** @param kept what an earlier process kept */
export function createSpares(kept: AgentState | null, clock: Clock): Spares {
  const spares = new Map<string, { readonly svid: X509Svid; readonly revision: number }>();
  for (const svid of kept?.svids ?? []) {
    const revision = kept?.view.mesh.entries.get(svid.entryId)?.revision;
    if (revision !== undefined) spares.set(svid.entryId, { svid, revision });
  }
  const isGood = ({ notAfter }: X509Svid): boolean => notAfter > clock.now();
  return {
    take: ({ id, revision }) => {
      const spare = spares.get(id);
      spares.delete(id);
      return spare !== undefined && spare.revision === revision && isGood(spare.svid)
        ? spare.svid
        : undefined;
    },
    put: (svid, { id, revision }) => void spares.set(id, { svid, revision }),
    keep: (entries) => {
      for (const [id, { svid, revision }] of spares) {
        if (entries.get(id)?.revision !== revision || !isGood(svid)) spares.delete(id);
      }
      return [...spares.values()].map(({ svid }) => svid);
    },
  };
}
