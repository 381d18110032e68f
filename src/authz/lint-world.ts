import { kubernetesNames, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { Workload } from './attachment.ts';
import { gatewayGroup } from './document.ts';
import type { Policy } from './policy.ts';

/** What stands around a policy, indexed so that ten thousand policies can be looked at one by one. Immutable. */
export type LintWorld = {
  readonly trustDomain: TrustDomain | null;
  readonly rootNamespace: string;
  /** Whether an enforced ALLOW policy may apply to a workload that the given one applies to. */
  readonly hasAllowBeside: (policy: Policy) => boolean;
  /** The providers of CUSTOM policies that may apply to a workload that the given one applies to. */
  readonly providersBeside: (policy: Policy) => ReadonlySet<string>;
  /** Null when nobody knows which workloads there are. */
  readonly inventory: Inventory | null;
};

/** The workloads of the registration entries. */
export type Inventory = {
  /** One for each identity and set of labels. */
  readonly workloads: readonly Workload[];
  /** IDs that several registrations give. */
  readonly shared: readonly (readonly Workload[])[];
  readonly principals: ReadonlySet<string>;
  readonly namespaces: ReadonlySet<string>;
  /** `namespace/account`. */
  readonly accounts: ReadonlySet<string>;
  /** Whether a policy's namespace and selector choose any workload. */
  readonly isChosen: (policy: Policy) => boolean;
};

/** Indexes policies and workloads. @param workloads null when nobody knows which there are */
export function indexWorld(
  policies: readonly Policy[],
  workloads: readonly Workload[] | null,
  of: { readonly trustDomain: TrustDomain | null; readonly rootNamespace: string },
): LintWorld {
  const { rootNamespace } = of;
  const enforced = policies.filter(({ dryRun }) => !dryRun);
  const allowing = new Set(
    enforced.filter(({ action }) => action === 'ALLOW').map(({ namespace }) => namespace),
  );
  const providers = new Map<string, Set<string>>();
  const everywhere = new Set<string>();
  for (const { namespace, provider } of enforced) {
    if (provider === null) continue;
    everywhere.add(provider);
    providers.set(namespace, (providers.get(namespace) ?? new Set()).add(provider));
  }
  return {
    ...of,
    hasAllowBeside: ({ namespace }) =>
      namespace === rootNamespace
        ? allowing.size > 0
        : allowing.has(namespace) || allowing.has(rootNamespace),
    providersBeside: ({ namespace }) =>
      namespace === rootNamespace
        ? everywhere
        : new Set([...(providers.get(namespace) ?? []), ...(providers.get(rootNamespace) ?? [])]),
    inventory: workloads === null ? null : indexInventory(workloads, rootNamespace),
  };
}

/** Whether a workload's labels satisfy the selector; every one satisfies an empty one. */
export function selects({ selector }: Policy, { labels }: Workload): boolean {
  return [...selector].every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}

/** The namespace that policies find a workload in. */
export function namespaceOf({ id, labels }: Workload): string | undefined {
  return (
    kubernetesNames(id)?.namespace ?? (Object.hasOwn(labels, 'namespace') ? labels['namespace'] : undefined)
  );
}

function indexInventory(workloads: readonly Workload[], rootNamespace: string): Inventory {
  const byId = new Map<string, Workload[]>();
  const byPlace = new Map<string, Workload[]>();
  const namespaces = new Set<string>();
  const accounts = new Set<string>();
  const file = (key: string, workload: Workload): void => {
    const filed = byPlace.get(key);
    if (filed === undefined) byPlace.set(key, [workload]);
    else filed.push(workload);
  };
  for (const workload of workloads) {
    const { id, labels } = workload;
    byId.set(id.text, [...(byId.get(id.text) ?? []).slice(0, maxShared), workload]);
    const names = kubernetesNames(id);
    const namespace = namespaceOf(workload);
    if (namespace !== undefined) namespaces.add(namespace);
    if (names !== undefined) accounts.add(`${names.namespace}/${names.serviceAccount}`);
    for (const within of new Set([rootNamespace, namespace])) {
      if (within === undefined) continue;
      file(placeKey(within), workload);
      for (const label of Object.entries(labels)) file(placeKey(within, label), workload);
    }
  }
  return {
    workloads,
    shared: [...byId.values()].filter(({ length }) => length > 1).slice(0, maxSharedIds),
    principals: new Set(workloads.map(({ id }) => withoutScheme(id))),
    namespaces,
    accounts,
    isChosen: (policy) => {
      if (policy.targetRefs.length > 0) {
        const names = policy.targetRefs.map(({ name }) => placeKey(policy.namespace, [gatewayLabel, name]));
        return names.some((key) => byPlace.has(key));
      }
      const places = [
        placeKey(policy.namespace),
        ...[...policy.selector].map((label) => placeKey(policy.namespace, label)),
      ].map((key) => byPlace.get(key) ?? []);
      const fewest = places.reduce((a, b) => (b.length < a.length ? b : a));
      return fewest.some((workload) => selects(policy, workload));
    },
  };
}

function withoutScheme({ text }: SpiffeId): string {
  return text.slice('spiffe://'.length);
}

function placeKey(namespace: string, label: readonly [string, string] | null = null): string {
  return JSON.stringify([namespace, label]);
}

const gatewayLabel = `${gatewayGroup}/gateway-name`;
const maxSharedIds = 1_000;
// Of an identity with more registrations than that the first say enough.
const maxShared = 64;
