import { SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import type { Workload } from '../attachment.ts';
import { gatewayGroup } from '../document.ts';
import { attachingLabels, namespaceOf } from '../lint-world.ts';
import type { Policy } from '../policy.ts';
import { compileSnapshot, inexactInIstioMode, type Snapshot, type SnapshotInput } from '../snapshot.ts';
import type { Steps } from '../steps.ts';
import type { BoxRule } from './box.ts';
import { type Ruling, rulingOf } from './ruling.ts';

/** The policies that are looked at, who is registered, and when. */
export type PolicyGround = Pick<SnapshotInput, 'trustDomain' | 'rootNamespace' | 'workloads' | 'mode'>;

/** A destination, and the workloads that have its ID. */
export type Destination = {
  readonly id: SpiffeId;
  readonly workloads: readonly Workload[];
  /** False: nobody is registered so; it stands for what a policy selects. */
  readonly isRegistered: boolean;
};

/** Destinations to which the same policies apply, in each of the sets. */
export type Group = {
  readonly members: readonly Destination[];
  /** One for each set of policies, in their order. */
  readonly rulings: readonly Ruling[];
};

/** All destinations there are, and each set of policies as it applies to them. */
export type Terrain = {
  readonly groups: readonly Group[];
  readonly snapshots: readonly Snapshot[];
};

/**
 * Finds the destinations, those that policies are about and nobody is registered for among them: a workload is made up of what
 * such a policy selects.
 * @param more further workloads that are of interest when nobody is registered so
 * @throws MeshError `policy_mode_inexact` in Istio mode
 */
export function* surveyTerrain(
  ground: PolicyGround,
  sets: readonly (readonly Policy[])[],
  boxRule: BoxRule,
  more: readonly Workload[] = [],
): Steps<Terrain> {
  if (ground.mode === 'istio') throw inexactInIstioMode();
  const policies = [...new Set(sets.flat())];
  const registered = byId(ground.workloads);
  const made = yield* madeUp(ground, policies, more);
  const workloads = [...ground.workloads, ...made];
  const snapshots = sets.map((set) =>
    compileSnapshot({ ...ground, workloads, policies: set, revision: 0, mode: 'strict' }),
  );
  const likenessOf = likenessBy(policies);
  const groups = new Map<string, { readonly members: Destination[]; readonly rulings: readonly Ruling[] }>();
  const byLikeness = new Map<string, Destination[]>();
  for (const [text, group] of byId(workloads)) {
    yield;
    const [first] = group;
    if (first === undefined) continue;
    const destination = { id: first.id, workloads: group, isRegistered: registered.has(text) };
    const likeness = likenessOf(destination);
    const known = byLikeness.get(likeness);
    if (known !== undefined) {
      known.push(destination);
      continue;
    }
    const applied = [];
    for (const snapshot of snapshots) applied.push(yield* snapshot.rulesFor(first.id));
    // A rule has the same name in both sets, and is another one where its policy differs.
    const key = JSON.stringify(
      applied.map(({ allowRules, denyRules, customRules }) => [
        ...new Set([...allowRules, ...denyRules, ...customRules].map(({ policy }) => policy.key)),
      ]),
    );
    const same = groups.get(key);
    if (same !== undefined) {
      same.members.push(destination);
      byLikeness.set(likeness, same.members);
      continue;
    }
    const rulings: Ruling[] = [];
    for (const rules of applied) rulings.push(yield* rulingOf(rules, boxRule));
    const members = [destination];
    groups.set(key, { members, rulings });
    byLikeness.set(likeness, members);
  }
  return { groups: [...groups.values()], snapshots };
}

function byId(workloads: readonly Workload[]): ReadonlyMap<string, Workload[]> {
  const found = new Map<string, Workload[]>();
  for (const workload of workloads) {
    const { text } = workload.id;
    const group = found.get(text) ?? [];
    found.set(text, group);
    group.push(workload);
  }
  return found;
}

/** What destinations have in common to which the same policies apply. */
function likenessBy(policies: readonly Policy[]): (destination: Destination) => string {
  const attaching = attachingLabels(policies);
  return ({ workloads }) =>
    JSON.stringify(
      workloads.map((workload) => [
        namespaceOf(workload) ?? null,
        Object.entries(workload.labels)
          .filter(([name]) => attaching.has(name))
          .sort(([a], [b]) => (a < b ? -1 : 1)),
      ]),
    );
}

/** The policies of one set that apply to no registered workload. */
export function* unattached(ground: PolicyGround, policies: readonly Policy[]): Steps<readonly Policy[]> {
  const byNamespace = new Map<string | undefined, Workload[]>();
  for (const [i, workload] of ground.workloads.entries()) {
    if (i % workloadsInStep === 0) yield;
    const namespace = namespaceOf(workload);
    const group = byNamespace.get(namespace) ?? [];
    byNamespace.set(namespace, group);
    group.push(workload);
  }
  const found: Policy[] = [];
  const split = byId(ground.workloads);
  for (const policy of policies) {
    yield;
    const isRoot = policy.namespace === ground.rootNamespace && policy.targetRefs.length === 0;
    const near = isRoot ? ground.workloads : (byNamespace.get(policy.namespace) ?? []);
    const labels = wantedLabels(policy);
    const fits = (one: Workload): boolean =>
      (isRoot || namespaceOf(one) === policy.namespace) &&
      labels.some((all) => Object.entries(all).every(([name, value]) => labelOf(one, name) === value));
    const isReached = (one: Workload): boolean =>
      fits(one) && (policy.action !== 'ALLOW' || (split.get(one.id.text) ?? [one]).every(fits));
    if (!near.some(isReached)) found.push(policy);
  }
  return found;
}

function labelOf({ labels }: Workload, name: string): string | undefined {
  return Object.hasOwn(labels, name) ? labels[name] : undefined;
}

/** The labels by which a policy finds its workloads: of several Gateways any. */
function wantedLabels({ selector, targetRefs }: Policy): readonly Workload['labels'][] {
  if (targetRefs.length === 0) return [Object.fromEntries(selector)];
  return targetRefs.map(({ name }) => ({ [`${gatewayGroup}/gateway-name`]: name }));
}

function* madeUp(
  ground: PolicyGround,
  policies: readonly Policy[],
  more: readonly Workload[],
): Steps<readonly Workload[]> {
  const { trustDomain, rootNamespace } = ground;
  const made = new Map<string, Workload>();
  const known = new Set(ground.workloads.map(({ id }) => id.text));
  for (const policy of yield* unattached(ground, policies)) {
    yield;
    for (const labels of wantedLabels(policy)) {
      const namespace = policy.namespace === rootNamespace ? 'default' : policy.namespace;
      addMade(made, known, trustDomain, policy.targetRefs.length > 0 ? policy.namespace : namespace, labels);
    }
  }
  for (const { id, labels } of more) {
    const namespace = namespaceOf({ id, labels });
    if (namespace !== undefined) addMade(made, known, trustDomain, namespace, labels);
  }
  return [...made.values()];
}

function addMade(
  made: Map<string, Workload>,
  known: ReadonlySet<string>,
  { name }: TrustDomain,
  namespace: string,
  labels: Workload['labels'],
): void {
  const key = JSON.stringify([namespace, Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1))]);
  if (made.has(key)) return;
  const taken = new Set([...made.values()].map(({ id }) => id.text));
  const base = Object.values(labels)[0] ?? 'any';
  const account = /^[A-Za-z0-9._-]{1,100}$/.test(base) && !/^\.{1,2}$/.test(base) ? base : 'any';
  for (let i = 1; ; i++) {
    const text = `spiffe://${name}/ns/${namespace}/sa/${account}${i === 1 ? '' : `-${i}`}`;
    if (known.has(text) || taken.has(text)) continue;
    made.set(key, { id: SpiffeId.parse(text), labels });
    return;
  }
}

const workloadsInStep = 512;
