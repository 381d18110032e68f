import { gatewayGroup } from './document.ts';
import { kubernetesNames, type SpiffeId } from '../spiffe/id.ts';
import type { Policy } from './policy.ts';
import type { Steps } from './steps.ts';

/** A workload of the inventory. Several entries may give one ID. */
export type Workload = { readonly id: SpiffeId; readonly labels: Readonly<Record<string, string>> };

/** The name and the value of a label. */
export type Label = readonly [name: string, value: string];

type AttachmentInput = { readonly rootNamespace: string; readonly workloads: readonly Workload[] };

/**
 * Which policies apply to a workload: those of the root namespace and of its own, whose selector its labels satisfy.
 * When several entries give one ID, an ALLOW policy applies only if all of them satisfy it and any other if one does:
 * a request does not say which of the workloads it reached.
 */
export class Attachment {
  readonly #rootNamespace: string;
  readonly #byNamespace = new Map<string, Shelf>();
  readonly #workloads = new Map<string, Workload[]>();

  constructor(policies: readonly Policy[], { rootNamespace, workloads }: AttachmentInput) {
    this.#rootNamespace = rootNamespace;
    for (const policy of policies) {
      const shelf: Shelf = this.#byNamespace.get(policy.namespace) ?? { everyone: [], byLabel: new Map() };
      this.#byNamespace.set(policy.namespace, shelf);
      const [label] = policy.selector;
      if (label === undefined) {
        shelf.everyone.push(policy);
        continue;
      }
      const key = labelKey(...label);
      const sameLabel = shelf.byLabel.get(key) ?? [];
      shelf.byLabel.set(key, sameLabel);
      sameLabel.push(policy);
    }
    for (const workload of workloads) {
      const group = this.#workloads.get(workload.id.text) ?? [];
      this.#workloads.set(workload.id.text, group);
      group.push(workload);
    }
  }

  /** For each of the workloads that have an ID the policies that select it, sorted by key. */
  *setsOf(destination: SpiffeId): Steps<readonly (readonly Policy[])[]> {
    const sets = yield* this.#attachAll(destination);
    return sets.map((policies) => [...policies].sort((a, b) => (a.key < b.key ? -1 : 1)));
  }

  *#attachAll(destination: SpiffeId): Steps<readonly ReadonlySet<Policy>[]> {
    const workloads = this.#workloads.get(destination.text) ?? [{ id: destination, labels: {} }];
    const attached: ReadonlySet<Policy>[] = [];
    for (const workload of workloads) {
      attached.push(this.#attach(workload));
      yield;
    }
    return attached;
  }

  *policiesOf(destination: SpiffeId): Steps<readonly Policy[]> {
    const attached = yield* this.#attachAll(destination);
    const any = new Set(attached.flatMap((policies) => [...policies]));
    yield;
    return [...any]
      .filter((policy) => policy.action !== 'ALLOW' || attached.every((policies) => policies.has(policy)))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  sharedLabels(destination: SpiffeId): ReadonlyMap<string, string> {
    const [first, ...others] = this.#workloads.get(destination.text) ?? [];
    const labels = Object.entries(first?.labels ?? {});
    return new Map(
      labels.filter(([name, value]) => others.every((one) => readLabel(one.labels, name) === value)),
    );
  }

  /** Whether an ALLOW policy of that namespace and selector would apply to another ID of the inventory too. */
  reachesOthers(destination: SpiffeId, namespace: string, selector: readonly Label[]): boolean {
    const isEverywhere = namespace === this.#rootNamespace;
    const isReached = (one: Workload): boolean =>
      selector.every(([name, value]) => readLabel(one.labels, name) === value) &&
      (isEverywhere || namespaceOf(one) === namespace);
    // Most of a hundred thousand are of other namespaces: taking each ID apart would take too long.
    const own = `spiffe://${destination.trustDomain.name}/ns/${namespace}/`;
    const isLabelled = ({ labels }: Workload): boolean => readLabel(labels, 'namespace') === namespace;
    for (const [text, workloads] of this.#workloads) {
      const mayBeIn = isEverywhere || text.startsWith(own) || workloads.some(isLabelled);
      if (mayBeIn && text !== destination.text && workloads.every(isReached)) return true;
    }
    return false;
  }

  #attach(workload: Workload): ReadonlySet<Policy> {
    const { labels } = workload;
    const own = namespaceOf(workload);
    const found = new Set<Policy>();
    for (const namespace of new Set([this.#rootNamespace, own])) {
      const shelf = namespace === undefined ? undefined : this.#byNamespace.get(namespace);
      if (shelf === undefined) continue;
      for (const policy of shelf.everyone) if (isTarget(policy, own, labels)) found.add(policy);
      for (const [name, value] of Object.entries(labels)) {
        for (const policy of shelf.byLabel.get(labelKey(name, value)) ?? []) {
          const selected = [...policy.selector].every(([key, text]) => readLabel(labels, key) === text);
          if (selected) found.add(policy);
        }
      }
    }
    return found;
  }
}

/** A policy with targets applies to the gateways of its own namespace that it names, and to nothing else. */
function isTarget(
  { targetRefs, namespace }: Policy,
  own: string | undefined,
  labels: Workload['labels'],
): boolean {
  if (targetRefs.length === 0) return true;
  const gateway = readLabel(labels, `${gatewayGroup}/gateway-name`);
  return (
    namespace === own &&
    targetRefs.some((target) => target.name === gateway && (target.namespace ?? namespace) === namespace)
  );
}

function namespaceOf({ id, labels }: Workload): string | undefined {
  return kubernetesNames(id)?.namespace ?? readLabel(labels, 'namespace');
}

/** Policies of a namespace: those without a selector, and the others by their selector's first label. */
type Shelf = { readonly everyone: Policy[]; readonly byLabel: Map<string, Policy[]> };

function labelKey(name: string, value: string): string {
  return JSON.stringify([name, value]);
}

/** Labels come from authors: `constructor` is a label like any other. */
function readLabel(labels: Readonly<Record<string, string>>, name: string): string | undefined {
  return Object.hasOwn(labels, name) ? labels[name] : undefined;
}
