import type { Clock } from './clock.ts';
import type { AuditorPorts } from './http/question-routes.ts';
import type { NodePorts } from './http/node-routes.ts';
import type { ReplayRoutePorts } from './http/replay-routes.ts';
import type { Breathe } from './identity/breath.ts';
import type { MeshHolder } from './identity/current-mesh.ts';
import { replayPolicies } from './identity/policy-replay.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import { decisionPorts } from './up-decisions.ts';
import { logReaders } from './up-log-readers.ts';

/** The questions of auditors, answered out of the store and the mesh of now. */
export function auditorPorts(parts: {
  readonly store: Store;
  readonly holder: MeshHolder;
  readonly trustDomain: TrustDomain;
  readonly rootNamespace: string;
  readonly nodes: Pick<NodePorts, 'registry' | 'presence'>;
  readonly clock: Clock;
  readonly breathe: Breathe;
  readonly openReplay: ReplayRoutePorts['openReplay'];
}): AuditorPorts {
  const { store, holder, trustDomain, rootNamespace, nodes, clock, breathe, openReplay } = parts;
  return {
    questionPorts: (isTimeUp) => ({
      ...decisionPorts(parts),
      ...logReaders(store, clock, isTimeUp),
      current: holder.current,
      settings: { trustDomain, rootNamespace },
      breathe,
      certificates: (names) => store.namedCertificates(names, clock.now()),
      nodes: () =>
        nodes.registry
          .all()
          .filter(({ evictedAt }) => evictedAt === null)
          .map(({ name }) => ({ name, presence: nodes.presence(name) })),
      replayRevision: async (revision, meant, limit) => {
        const replay = openReplay(() => false);
        try {
          const choice = { files: [], without: [], revision };
          const answer = await replayPolicies(choice, meant, limit, { ...replay.ports, isTimeUp });
          // It is only left undone by those who say so.
          if (answer === undefined) throw new Error('the question was left');
          return answer;
        } finally {
          replay.close();
        }
      },
      logKey: () => store.readMeta('audit_verifier_key'),
    }),
  };
}
