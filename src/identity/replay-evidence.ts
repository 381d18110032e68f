import type { RecordedCalls } from '../audit/recorded-call.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { Shows } from '../authz/rejudge.ts';
import type { CurrentMesh } from './current-mesh.ts';
import type { PolicyArchive } from './decision-past.ts';
import { policySetMode } from './policy-revision.ts';

/** What was in force at a revision of the mesh. */
export type Then = {
  /** Null when it is not known. */
  readonly mode: PolicyMode | null;
  /** By their keys; null when they are kept no longer. */
  readonly policies: ReadonlyMap<string, { readonly sha256: string }> | null;
  /** When they were put in force. */
  readonly sinceMs: number;
};

/** Looks up what was in force. What is read once is kept: records name the same few revisions. */
export function createThens(
  archive: Pick<PolicyArchive, 'revision' | 'revisionAt' | 'policiesOf'>,
): (meshRevision: number) => Promise<Then> {
  const known = new Map<number, Promise<Then>>();
  const sets = new Map<number, Promise<Then>>();
  const read = async (number: number): Promise<Then> => {
    const revision = await archive.revision(number);
    if (revision === null) return unknown;
    const policies = await archive.policiesOf(number);
    return { mode: policySetMode(policies, revision.id) ?? null, policies, sinceMs: revision.time.getTime() };
  };
  const look = async (meshRevision: number): Promise<Then> => {
    const number = meshRevision === 0 ? null : await archive.revisionAt(meshRevision);
    if (number === null) return unknown;
    const found = sets.get(number) ?? read(number);
    if (sets.size >= maxSets) sets.clear();
    sets.set(number, found);
    return found;
  };
  return (meshRevision) => {
    const found = known.get(meshRevision) ?? look(meshRevision);
    if (known.size >= maxRevisions) known.clear();
    known.set(meshRevision, found);
    return found;
  };
}

/**
 * What the records show of rules that read what they do not hold. The rule that let a call pass has matched it; no DENY and no
 * CUSTOM rule of then has matched one that passed, or that no ALLOW rule matched. That holds of a rule only whose policy was
 * in force then with the very same text, and of DENY and CUSTOM rules only when the workload was registered as it is now.
 * Undefined: nothing.
 */
export function showsOf({ call, lastMs }: RecordedCalls, then: Then, by: CurrentMesh): Shows | undefined {
  const { policies, mode, sinceMs } = then;
  const { verdict, reason, rule, revision } = call;
  if (policies === null || mode !== 'strict' || call.kind === 'seen') return undefined;
  // Revisions come again after a restore from a backup. Clocks of nodes may differ a little.
  if (revision > by.mesh.revision || sinceMs > lastMs + clockSkewMs) return undefined;
  const isDecided = decidedByRule.has(reason);
  const isNoneDenied = reason === 'allow_rule' || reason === 'no_allow_rule';
  if (!isDecided && !isNoneDenied) return undefined;
  const registered = registeredAt(by, call.destination);
  const isRegisteredSo = registered !== undefined && registered <= revision;
  return ({ policy, rule: { name } }) => {
    if (by.mesh.policies.get(policy.key)?.sha256 !== policies.get(policy.key)?.sha256) return undefined;
    if (isDecided && name === rule) return true;
    if (policy.action === 'ALLOW' || policy.action === 'AUDIT') return undefined;
    if (!isNoneDenied || !isRegisteredSo || policy.terms.bounds.length > 0) return undefined;
    // What a grant outweighs may have matched.
    return policy.terms.liftable && verdict === 'allow' && call.kind === 'decision' ? undefined : false;
  };
}

/** The revision at which a workload was last registered anew; undefined for one that is not registered. */
function registeredAt({ mesh: { entries } }: CurrentMesh, destination: string): number | undefined {
  const known = revisions.get(entries) ?? new Map<string, number>();
  if (!revisions.has(entries)) {
    revisions.set(entries, known);
    for (const { spiffeId, revision } of entries.values()) {
      known.set(spiffeId.text, Math.max(revision, known.get(spiffeId.text) ?? 0));
    }
  }
  return known.get(destination);
}

const revisions = new WeakMap<CurrentMesh['mesh']['entries'], Map<string, number>>();
const unknown: Then = { mode: null, policies: null, sinceMs: 0 };
const decidedByRule: ReadonlySet<string> = new Set(['allow_rule', 'deny_rule', 'custom_unanswered']);
const clockSkewMs = 300_000;
const maxRevisions = 4_096;
const maxSets = 64;
