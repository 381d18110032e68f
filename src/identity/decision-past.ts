import { isCut, type LoggedDecision } from '../audit/logged-decision.ts';
import { cutExcerpt, type Excerpt } from '../authz/explain.ts';
import { Facts } from '../authz/facts.ts';
import { readNearest } from '../authz/nearest.ts';
import { type Policy, type Predicate, type Rule, sides } from '../authz/policy.ts';
import type { PolicyMode } from '../authz/policy-mode.ts';
import type { PartlyKnownCall } from '../authz/replay.ts';
import { canonicalizeHttp, canonicalizeTcp, isRejection } from '../authz/request.ts';
import { compileSnapshot, type Snapshot } from '../authz/snapshot.ts';
import { describeMiss, describeUsed } from '../authz/words.ts';
import { MeshError } from '../errors.ts';
import { kubernetesNames, type SpiffeId } from '../spiffe/id.ts';
import type { Breathe } from './breath.ts';
import { type CurrentMesh, type MeshSettings, readStoredPolicy } from './current-mesh.ts';
import type { PolicyDocument } from './mesh.ts';
import { policySetMode, type PolicyRevisionRecord } from './policy-revision.ts';

/** What is kept of earlier policies. */
export type PolicyArchive = {
  /** The policy revision in force at a revision of the mesh, kept or not. */
  readonly revisionAt: (meshRevision: number) => Promise<number | null>;
  readonly revision: (number: number) => Promise<PolicyRevisionRecord | null>;
  /** All of its policies, without their texts. */
  readonly policiesOf: (number: number) => Promise<ReadonlyMap<string, Pick<PolicyDocument, 'sha256'>>>;
  /** Those of some namespaces. */
  readonly policiesIn: (number: number, namespaces: readonly string[]) => Promise<readonly PolicyDocument[]>;
};

/** What policies once were to one destination, read with the registrations of today. */
export type Past = {
  /** How policies were read under a revision; null when the revision is not whole any more. */
  readonly modeOf: (revision: PolicyRevisionRecord) => Promise<PolicyMode | null>;
  /** @throws MeshError `policy_invalid` when this version cannot read what was stored */
  readonly policiesAt: (number: number) => Promise<readonly Policy[]>;
  readonly snapshotAt: (number: number, mode: PolicyMode) => Promise<Snapshot>;
  /** The namespaces whose policies can apply to it. */
  readonly namespaces: readonly string[];
};

/** Looks back. What is read once is kept for as long as this is: for one question. */
export function lookBack(
  archive: PolicyArchive,
  { mesh, policies: live }: Pick<CurrentMesh, 'mesh' | 'policies'>,
  { trustDomain, rootNamespace }: Pick<MeshSettings, 'trustDomain' | 'rootNamespace'>,
  destination: SpiffeId,
  breathe: Breathe,
): Past {
  const entries = [...mesh.entries.values()].filter(({ spiffeId }) => spiffeId.text === destination.text);
  const workloads = entries.map(({ spiffeId, labels }) => ({ id: spiffeId, labels }));
  const own = kubernetesNames(destination)?.namespace;
  const labelled = entries.flatMap(({ labels }) =>
    Object.hasOwn(labels, 'namespace') ? [labels['namespace'] ?? ''] : [],
  );
  const namespaces = [...new Set([rootNamespace, ...(own === undefined ? labelled : [own])])];
  const parsed = new Map<string, Policy>();
  const read = (document: PolicyDocument): Policy => {
    const now = mesh.policies.get(document.key);
    const isSame =
      now?.sha256 === document.sha256 && now.file === document.file && now.line === document.line;
    const known = isSame ? live.get(document.key) : undefined;
    if (known !== undefined) return known;
    const name = JSON.stringify([document.key, document.sha256, document.file, document.line]);
    const policy = parsed.get(name) ?? readStoredPolicy(document);
    parsed.set(name, policy);
    return policy;
  };
  const policiesAt = async (number: number): Promise<readonly Policy[]> => {
    const policies: Policy[] = [];
    for (const document of await archive.policiesIn(number, namespaces)) {
      policies.push(read(document));
      // There may be thousands, and each takes as long to read as dozens of calls to judge.
      await breathe();
    }
    return policies;
  };
  return {
    namespaces,
    policiesAt,
    modeOf: async ({ number, id }) => policySetMode(await archive.policiesOf(number), id) ?? null,
    snapshotAt: async (number, mode) => {
      const policies = await policiesAt(number);
      return compileSnapshot({ revision: 0, trustDomain, rootNamespace, policies, workloads, mode });
    },
  };
}

/** The rule that a record names, or the nearest one, where it stood when it decided. */
export type RuleThen = {
  readonly kind: 'decided' | 'nearest';
  /** `namespace/name rule[0]`. */
  readonly rule: string;
  /** The predicate that a nearest rule failed on, or the rule; null when there is no such rule in that revision. */
  readonly at: Excerpt | null;
  /** What the call had instead; empty when that predicate is not found, or for a rule that decided. */
  readonly used: string;
};

/** The rule that a record names; null when it names none. @param policies of then; empty when they are not known */
export function ruleOfRecord(
  record: LoggedDecision,
  policies: readonly Policy[],
  known: PartlyKnownCall | undefined,
  { trustDomain }: Pick<MeshSettings, 'trustDomain'>,
): RuleThen | null {
  const nearest = record.rule === '' ? readNearest(record.why) : null;
  const name = nearest?.rule ?? record.rule;
  if (name === '') return null;
  const kind = nearest === null ? 'decided' : 'nearest';
  const policy = policies.find(({ key }) => name.startsWith(`${key} rule[`));
  const rule = policy?.rules.find((one) => one.name === name);
  if (policy === undefined || rule === undefined) return { kind, rule: name, at: null, used: '' };
  const facts = known === undefined ? undefined : factsOf(known, trustDomain, record);
  const missed =
    nearest === null || facts === undefined ? undefined : findMissed(rule, nearest.missed, facts);
  const { place, length } = missed ?? { place: rule.place, length: 1 };
  // INVARIANT: only what the record says whole: of what it does not hold other words could stand here.
  const isSaid = missed !== undefined && facts !== undefined && !isCut(nearest?.missed ?? '');
  const used = isSaid ? describeUsed(missed, facts) : '';
  return { kind, rule: name, at: cutExcerpt(policy, place, length), used };
}

/** The predicate of which the record says these words. */
function findMissed(rule: Rule, words: string, facts: Facts): Predicate | undefined {
  const begins = isCut(words) ? words.replace(/…(?:\[\+[0-9]+\])?$/, '') : words;
  const all = sides.flatMap((side) => rule[side].flatMap(({ predicates }) => predicates));
  const found = all.filter((predicate) => {
    const said = describeMiss(predicate, facts);
    return isCut(words) ? said.startsWith(begins) : said === words;
  });
  return isCut(words) && found.length > 1 ? undefined : found[0];
}

function factsOf(
  { call }: PartlyKnownCall,
  trustDomain: MeshSettings['trustDomain'],
  { time }: LoggedDecision,
): Facts | undefined {
  const request = call.protocol === 'http' ? canonicalizeHttp(call) : canonicalizeTcp(call);
  return isRejection(request) ? undefined : new Facts(request, trustDomain, new Date(time));
}

/** What `look` finds, or undefined where this version cannot read what was stored. */
export async function whereReadable<T>(look: () => Promise<T>): Promise<T | undefined> {
  try {
    return await look();
  } catch (error) {
    if (error instanceof MeshError && error.code === 'policy_invalid') return undefined;
    throw error;
  }
}
