import { untold } from '../../src/authz/context.ts';
import type { Decision } from '../../src/authz/decision.ts';
import { judgeCall } from '../../src/authz/judge.ts';
import { parsePolicy } from '../../src/authz/parse.ts';
import type { Policy } from '../../src/authz/policy.ts';
import { compileProxyPolicy, parseLeafName, type ProxyPolicy } from '../../src/authz/proxy-policy.ts';
import { compileSnapshot, type Snapshot, type SnapshotInput } from '../../src/authz/snapshot.ts';
import { finish } from '../../src/authz/steps.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { documentOfJson } from '../../src/yaml-json.ts';
import type { RawPolicy } from '../authz/istio-rbac.ts';

/** Whom the policies of these tests protect. */
export const destination = SpiffeId.parse('spiffe://td1/ns/shop/sa/orders');

/** The mesh they are in. */
export const treeGround = {
  trustDomain: TrustDomain.parse('td1'),
  rootNamespace: 'istio-system',
  workloads: [{ id: destination, labels: {} }],
} as const satisfies Omit<SnapshotInput, 'policies' | 'revision'>;

export function readRaw(world: readonly RawPolicy[]): readonly Policy[] {
  return world.map((one) => parsePolicy(documentOfJson(one, { file: 'p', line: 1 })));
}

export function snapshotOf(world: readonly RawPolicy[]): Snapshot {
  return compileSnapshot({ ...treeGround, revision: 1, policies: readRaw(world) });
}

export function treesOf(snapshot: Snapshot): ProxyPolicy {
  return finish(compileProxyPolicy({ snapshot, destination, bannedIds: [], asksAll: null }));
}

/** An answer, and with an answer of its own the call as the proxy had it. */
export type Seen = {
  readonly status: number;
  readonly detail: string;
  readonly method: string;
  readonly path: string;
  readonly authority: string;
};

/** The answer in a body that the proxy wrote. */
export function readAnswer(status: number, body: string): Seen {
  const [detail = '', method = '', authority = '', path = ''] = body.split('\n');
  return { status, detail, method, authority, path };
}

export function verdictOf({ status, detail }: Seen): 'allow' | 'deny' | 'ask' | 'refused' {
  if (status === 200) return 'allow';
  if (status === 503 && detail === 'ext_authz_error') return 'ask';
  if (status === 400) return 'refused';
  const name = /^rbac_access_denied_matched_policy\[(.*)\]$/.exec(detail)?.[1];
  if (status !== 403 || name === undefined) throw new Error(`Envoy answered ${status} ${detail}`);
  // Istio's rules have names of their own.
  if (name.startsWith('deny:') && parseLeafName(name) === undefined)
    throw new Error(`no leaf is named ${name}`);
  return 'deny';
}

/** What the engine says of the call as Envoy’s filters had it. */
export function judgeSeen(
  snapshot: Snapshot,
  source: SpiffeId | null,
  { method, path, authority }: Seen,
  port: number,
  context = untold,
): Decision {
  const raw = { source, destination, method, path, authority, port, context };
  return judgeCall(snapshot, { protocol: 'http', ...raw }, new Date(0)).decision;
}
