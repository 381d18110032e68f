import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Actor, AuditEvent } from '../../src/audit/event.ts';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import { createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { replayPolicies } from '../../src/identity/policy-replay.ts';
import type { CallsMeant, PolicyReplay } from '../../src/identity/replay-answer.ts';
import type { CandidateChoice } from '../../src/identity/replay-candidate.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { openStore } from '../../src/store/store.ts';
import { replayPorts } from '../../src/up-replay.ts';
import { allowedCalls, decision } from '../audit/events.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';
import { entry, id } from '../http/documents.ts';

export const [web, job, ledger] = [id('web'), id('job'), id('ledger', 'pay')];
export const admin: Actor = { kind: 'uid', uid: 0, role: 'admin' };
const trustDomain = TrustDomain.parse('example.org');
const rootNamespace = 'istio-system';

/** A policy of the namespace `pay`; `spec` is YAML in flow style. */
export const pay = (name: string, spec: string, namespace = 'pay') =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: ${name}, namespace: ${namespace} }\nspec:\n  ${spec}\n`;
export const fromWeb = 'from: [{ source: { principals: [example.org/ns/shop/sa/web] } }]';
const everybody: CallsMeant = {
  ...{ since: null, until: null, destination: null, namespace: null },
  mayReadPersonal: true,
};

export type ReplayWorld = Awaited<ReturnType<typeof startReplayWorld>>;

/** A store, a mesh with web, job and ledger, and calls in the log. */
export async function startReplayWorld(policyMode: PolicyMode = 'strict') {
  const directory = mkdtempSync(join(tmpdir(), 'cs-replay-'));
  const clock = manualClock();
  const store = await openStore({ dataDir: join(directory, 'data'), clock, randomBytes });
  const settings = { trustDomain, rootNamespace, ttlSeconds: 3_600, policyMode };
  const holder = createMeshHolder(compileStoredMesh(await store.loadMesh(), settings));
  const mesh = createAdministration({
    ...{ holder, settings, clock, signer: makePolicySigner() },
    commit: store.commitMesh,
    history: { revision: store.policyRevision, past: store.policyPast },
    latestExpiry: store.latestExpiry,
    latestExpiries: store.latestExpiries,
  });
  await mesh.adoptPolicies();
  const replay = replayPorts({
    ...{ store, holder, trustDomain, rootNamespace, clock, ttlSeconds: 3_600 },
    breathe: () => undefined,
  });
  const apply = (...texts: readonly string[]) =>
    mesh.apply(
      texts.map((text, i) => ({ file: `${i}.yaml`, text })),
      admin,
      { dryRun: false },
    );
  await apply(
    entry('web'),
    entry('job'),
    entry('ledger', 'pay').replace('{ name: ledger }', '{ name: ledger, labels: { app: ledger } }'),
  );
  let start = clock.now();
  const common = () => ({ time: clock.now(), revision: holder.current().mesh.revision });
  return {
    store,
    clock,
    holder,
    mesh,
    apply,
    openReplay: replay.openReplay,
    /** A day later, without policies. What was recorded before is replayed no more. */
    begin: async () => {
      await clock.advance(86_400_000);
      start = clock.now();
      for (const key of mesh.current().policies.keys()) await mesh.deletePolicy(key, admin);
    },
    /** Calls that were counted, as of now. */
    counted: (change: Partial<Parameters<typeof allowedCalls>[0]> = {}) =>
      allowedCalls({
        ...common(),
        from: clock.now(),
        to: clock.now(),
        rule: 'pay/p rule[0]',
        count: 10,
        ...change,
      }),
    /** A call that was decided, as of now. */
    decided: (change: Partial<Parameters<typeof decision>[0]> = {}) => decision({ ...common(), ...change }),
    record: (events: readonly AuditEvent[]) => store.recordEvents(events),
    replay: async (
      choice: Partial<Omit<CandidateChoice, 'files'>> & { readonly texts?: readonly string[] },
      meant: Partial<CallsMeant> = {},
      limit = 100,
    ): Promise<PolicyReplay> => {
      const { texts = [], ...rest } = choice;
      const files = texts.map((text, i) => ({ file: `new-${i}.yaml`, text }));
      const open = replay.openReplay(() => false);
      try {
        const answer = await replayPolicies(
          { files, without: [], revision: null, ...rest },
          { ...everybody, since: start, ...meant },
          limit,
          open.ports,
        );
        if (answer === undefined) throw new Error('left');
        return answer;
      } finally {
        open.close();
      }
    },
    close: async () => {
      await store.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
