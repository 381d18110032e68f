import { kubernetesNames, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { Workload } from './attachment.ts';
import { gatewayGroup } from './document.ts';
import type { Policy } from './policy.ts';
import { rulesInStep, type Steps } from './steps.ts';

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
  /** All workloads that have an ID. */
  readonly byId: ReadonlyMap<string, readonly Workload[]>;
  readonly principals: ReadonlySet<string>;
  /** Of callers. */
  readonly namespaces: ReadonlySet<string>;
  /** `namespace/account`. */
  readonly accounts: ReadonlySet<string>;
  /** Whether a policy's namespace and selector choose any workload. */
  readonly isChosen: (policy: Policy) => boolean;
  /** Whether they choose one workload of an ID and leave out another. */
  readonly isSplit: (policy: Policy) => boolean;
};

/** Indexes policies and workloads. @param workloads null when nobody knows which there are */
export function* indexWorld(
  policies: readonly Policy[],
  workloads: readonly Workload[] | null,
  of: { readonly trustDomain: TrustDomain | null; readonly rootNamespace: string },
): Steps<LintWorld> {
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
  yield;
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
    inventory: workloads === null ? null : yield* indexInventory(workloads, rootNamespace),
  };
}

/** The names of labels by which policies are attached to workloads. */
export function attachingLabels(policies: readonly Policy[]): ReadonlySet<string> {
  return new Set([gatewayLabel, ...policies.flatMap(({ selector }) => [...selector.keys()])]);
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

function* indexInventory(workloads: readonly Workload[], rootNamespace: string): Steps<Inventory> {
  const byId = new Map<string, Workload[]>();
  const byPlace = new Map<string, Workload[]>();
  const principals = new Set<string>();
  const namespaces = new Set<string>();
  const accounts = new Set<string>();
  const file = (shelf: Map<string, Workload[]>, key: string, workload: Workload): void => {
    const filed = shelf.get(key);
    if (filed === undefined) shelf.set(key, [workload]);
    else filed.push(workload);
  };
  for (const [i, workload] of workloads.entries()) {
    if (i % rulesInStep === 0) yield;
    const { id, labels } = workload;
    file(byId, id.text, workload);
    principals.add(withoutScheme(id));
    const names = kubernetesNames(id);
    const namespace = namespaceOf(workload);
    // As a caller only such an ID has a namespace, whatever its entry's labels say.
    if (names !== undefined) {
      namespaces.add(names.namespace);
      accounts.add(`${names.namespace}/${names.serviceAccount}`);
    }
    for (const within of new Set([rootNamespace, namespace])) {
      if (within === undefined) continue;
      file(byPlace, placeKey(within), workload);
      for (const label of Object.entries(labels)) file(byPlace, placeKey(within, label), workload);
    }
  }
  const several = new Set([...byId].filter(([, { length }]) => length > 1).map(([id]) => id));
  /** All that a policy's namespace and selector choose are among them. */
  const candidatesOf = ({ namespace, selector }: Policy): readonly Workload[] =>
    [placeKey(namespace), ...[...selector].map((label) => placeKey(namespace, label))]
      .map((key) => byPlace.get(key) ?? [])
      .reduce((a, b) => (b.length < a.length ? b : a));
  return {
    workloads,
    byId,
    principals,
    namespaces,
    accounts,
    isChosen: (policy) => {
      if (policy.targetRefs.length > 0) {
        const names = policy.targetRefs.map(({ name }) => placeKey(policy.namespace, [gatewayLabel, name]));
        return names.some((key) => byPlace.has(key));
      }
      return candidatesOf(policy).some((workload) => selects(policy, workload));
    },
    isSplit: (policy) => {
      if (policy.selector.size === 0 || several.size === 0) return false;
      const ids = candidatesOf(policy).map(({ id }) => id.text);
      for (const id of new Set(ids.filter((one) => several.has(one)))) {
        const [first, ...others] = byId.get(id) ?? [];
        const isFirst = first !== undefined && selects(policy, first);
        if (others.some((other) => selects(policy, other) !== isFirst)) return true;
      }
      return false;
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
