import type { Unproven } from '../authz/analysis/compare.ts';
import { type Invariant, invariantKind, readInvariant } from '../authz/analysis/invariant.ts';
import type { Workload } from '../authz/attachment.ts';
import { parsePolicy, policyKind } from '../authz/parse.ts';
import type { Policy } from '../authz/policy.ts';
import type { Steps } from '../authz/steps.ts';
import { formatPlace, MeshError, type Place, quote } from '../errors.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { readInSteps, type YamlDocument } from '../yaml.ts';
import { grantKind } from './admin-grant.ts';
import type { RegistrationEntry } from './entry.ts';
import { entryKind, readEntryDocument } from './entry-document.ts';
import type { PolicyDocument } from './mesh.ts';
import { aliasKind } from './node-alias.ts';
import type { SourceFile } from './plan.ts';
import { readStoredPolicy } from './current-mesh.ts';

/** What is analysed: policies by their keys, workloads by the ids of their entries, and what must hold. */
export type Analysed = {
  readonly policies: ReadonlyMap<string, Policy>;
  readonly workloads: ReadonlyMap<string, Workload>;
  readonly invariants: readonly Invariant[];
};

/**
 * Reads files of policies, entries and invariants. Documents of the other kinds that `apply` knows are passed over.
 * @throws MeshError with its place: `document_*`, `policy_*`, `spiffe_id_*`; `document_field_value` for two of one name
 */
export function* readAnalysed(files: readonly SourceFile[]): Steps<Analysed> {
  const policies = new Map<string, Policy>();
  const workloads = new Map<string, Workload>();
  const invariants: Invariant[] = [];
  const places = new Map<string, Place>();
  for (const file of files) {
    for (const document of yield* readInSteps(file)) {
      yield;
      const name = readOne(document, { policies, workloads, invariants });
      if (name === undefined) continue;
      const { place } = document.root;
      const first = places.get(name);
      if (first !== undefined) {
        throw new MeshError(
          'document_field_value',
          `there are two documents of the ${name}: the other is at ${formatPlace(first)}`,
          {
            place,
            fix: 'rename one of them',
          },
        );
      }
      places.set(name, place);
    }
  }
  return { policies, workloads, invariants };
}

function readOne(
  document: YamlDocument,
  into: {
    readonly policies: Map<string, Policy>;
    readonly workloads: Map<string, Workload>;
    readonly invariants: Invariant[];
  },
): string | undefined {
  switch (document.kind) {
    case policyKind: {
      const policy = parsePolicy(document);
      into.policies.set(policy.key, policy);
      return `policy ${policy.key}`;
    }
    case entryKind: {
      const { id, spiffeId, labels = {} } = readEntryDocument(document).input;
      into.workloads.set(id, { id: SpiffeId.parseWorkload(spiffeId), labels });
      return `entry ${id}`;
    }
    case invariantKind: {
      const invariant = readInvariant(document);
      into.invariants.push(invariant);
      return `invariant ${invariant.name}`;
    }
    case aliasKind:
    case grantKind:
      return undefined;
    default:
      // A misspelt kind must not look like an invariant that holds.
      throw document.root.error(
        'document_kind_unknown',
        `is of kind ${quote(document.kind)}`,
        `write ${policyKind}, ${entryKind} or ${invariantKind}`,
      );
  }
}

/** What applying some files would make of it. */
export function onTop(base: Analysed, files: Analysed): Analysed {
  return {
    policies: new Map([...base.policies, ...files.policies]),
    workloads: new Map([...base.workloads, ...files.workloads]),
    invariants: [...base.invariants, ...files.invariants],
  };
}

/**
 * The identities whose entries carry other labels on the two sides: both sets of policies are compared as they apply
 * afterwards, so what the labels alone change is not settled.
 */
export function relabelled(before: Analysed, after: Analysed): readonly Unproven[] {
  const [old, young] = [labelsById(before), labelsById(after)];
  return [...young]
    .filter(([id, labels]) => (old.get(id) ?? labels) !== labels)
    .map(([about]) => ({
      about,
      why: 'its entries have other labels on the two sides: those of the second count',
    }));
}

function labelsById({ workloads }: Analysed): ReadonlyMap<string, string> {
  const byId = Map.groupBy(workloads.values(), ({ id }) => id.text);
  const textOf = (all: readonly Workload[]): string =>
    JSON.stringify(
      [...new Set(all.map(({ labels }) => JSON.stringify(Object.entries(labels).sort())))].sort(),
    );
  return new Map([...byId].map(([id, all]) => [id, textOf(all)]));
}

/** The entries of a mesh as workloads. */
export function workloadsOf(entries: Iterable<RegistrationEntry>): ReadonlyMap<string, Workload> {
  return new Map([...entries].map(({ id, spiffeId, labels }) => [id, { id: spiffeId, labels }]));
}

/**
 * Reads policies that were stored; those that are parsed already are taken from there.
 * @throws MeshError `policy_invalid` for one that this version cannot read, `store_corrupt`
 */
export function* readStored(
  documents: readonly PolicyDocument[],
  parsed: ReadonlyMap<string, Policy>,
): Steps<ReadonlyMap<string, Policy>> {
  const policies = new Map<string, Policy>();
  for (const document of documents) {
    yield;
    const known = parsed.get(document.key);
    const isSame =
      known?.text === document.source && known.line === document.line && known.place.file === document.file;
    policies.set(document.key, isSame ? known : readStoredPolicy(document));
  }
  return policies;
}

/**
 * Work that is given up after a time.
 * @param mayGoOn asked between steps
 * @throws MeshError `policy_analysis_too_large`
 */
export function* inTime<T>(work: Steps<T>, mayGoOn: () => boolean): Steps<T> {
  for (let step = work.next(); ; step = work.next()) {
    if (step.done === true) return step.value;
    if (!mayGoOn()) {
      throw new MeshError(
        'policy_analysis_too_large',
        'the policies take longer to compare than a server does it',
        {
          fix: 'compare files with countersign policy prove -f or policy diff, or policies of fewer namespaces',
        },
      );
    }
    yield;
  }
}
