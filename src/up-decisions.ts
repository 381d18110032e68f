import type { Clock } from './clock.ts';
import type { DecisionPorts } from './http/decision-routes.ts';
import type { Breathe } from './identity/breath.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { createDecisionStories } from './identity/decision-story.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';

/** Decisions in the log, explained out of the store. */
export function decisionPorts(parts: {
  readonly store: Store;
  readonly holder: MeshHolder;
  readonly trustDomain: TrustDomain;
  readonly rootNamespace: string;
  readonly clock: Clock;
  readonly breathe: Breathe;
}): DecisionPorts {
  const { store, holder, trustDomain, rootNamespace, clock, breathe } = parts;
  return {
    findDecisions: store.findDecisions,
    tellDecision: createDecisionStories({
      archive: {
        revisionAt: store.revisionAt,
        revision: store.policyRevision,
        page: store.policyRevisions,
        policiesOf: store.policiesOf,
        policiesIn: store.policiesIn,
        certificates: (serials, now) => store.namedCertificates({ spiffeIds: [], keys: [], serials }, now),
      },
      current: holder.current,
      settings: { trustDomain, rootNamespace },
      clock,
      breathe,
    }),
  };
}
