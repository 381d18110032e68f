import { MeshError } from '../errors.ts';
import { bytesEqual } from '../spiffe/der.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import { type Ban, banKey, type BanTarget } from './ban.ts';
import type { RegistrationEntry } from './entry.ts';
import type { Mesh, PolicyDocument } from './mesh.ts';
import type { PolicyRevision } from './policy-revision.ts';
import type { StagedRollout } from './rollout.ts';

/** What the server decides for all its nodes. */
export type ViewSettings = {
  readonly trustDomain: string;
  readonly rootNamespace: string;
  readonly ttlSeconds: number;
  /** After so long without a word from the server, policy counts as unknown. */
  readonly maxStalenessSeconds: number;
  /** What verifies the audit log, as text; absent in the view of a server that does not say. */
  readonly auditLogKey?: string;
};

/**
 * All that one node works with. Immutable.
 *
 * Policies and bans are those of the whole mesh: a node that lacked one that denies would open a door. Entries are the
 * node's own alone: nobody can be made to ask for the certificate of another node's workload.
 */
export type NodeView = {
  /** 1 for the first of a stream, then one more with each delta. It says nothing beyond its stream. */
  readonly revision: number;
  /** At the revision of the server's mesh; its bans do not say who made them, and aliases are not told. */
  readonly mesh: Mesh;
  readonly bundle: TrustBundle;
  readonly jwtBundle: JwtBundle;
  /** CRLs, DER. */
  readonly crls: readonly Uint8Array[];
  /** CAs whose certificates are to be replaced, in an order of their own. */
  readonly outgoing: readonly OutgoingIssuer[];
  readonly settings: ViewSettings;
};

/** A CA whose certificates are to be replaced. */
export type OutgoingIssuer = {
  /** Subject key identifier, lower-case hex. */
  readonly keyId: string;
  /** At once, since nobody trusts it or somebody else may have its key; else spread, as renewal-spread.ts has it. */
  readonly urgent: boolean;
  /** How many nodes replace them: they do not ask all at once. */
  readonly nodes: number;
};

/** What leads from one view to the next of its stream. */
export type ViewDelta = {
  readonly baseRevision: number;
  /** baseRevision + 1 */
  readonly revision: number;
  readonly meshRevision: number;
  readonly putEntries: readonly RegistrationEntry[];
  readonly deleteEntries: readonly string[];
  readonly putPolicies: readonly PolicyDocument[];
  readonly deletePolicies: readonly string[];
  readonly putBans: readonly Ban[];
  readonly deleteBans: readonly BanTarget[];
  /** Undefined: as it was. */
  readonly bundle: TrustBundle | undefined;
  readonly jwtBundle: JwtBundle | undefined;
  readonly crls: readonly Uint8Array[] | undefined;
  readonly outgoing: readonly OutgoingIssuer[] | undefined;
  readonly settings: ViewSettings | undefined;
  readonly policyRevision: PolicyRevision | undefined;
  /** Undefined: as it was, if the policy revision is. */
  readonly rollout: StagedRollout | undefined;
};

/** What views are made of, at one moment. */
export type ViewSource = Omit<NodeView, 'revision'>;

/** Makes the views of all nodes; what they share is worked out once for each mesh. */
export type MakeView = (names: readonly string[], source: ViewSource, revision: number) => NodeView;

/**
 * @param names in {@link MakeView}: what the node answers to in the `nodes` of entries, `node:web-1` and `alias:edge`
 *   for example. `*` need not be among them
 */
export function createViewMaker(): MakeView {
  let indexed: ReadonlyMap<string, RegistrationEntry> | undefined;
  let byName: ReadonlyMap<string, readonly RegistrationEntry[]> = new Map();
  // INVARIANT: while the mesh has the same entries, nodes that answer to the same names share one map: what follows from
  // it is worked out once for all of them, and is the same thing when nothing has changed.
  const entriesOf = new Map<string, ReadonlyMap<string, RegistrationEntry>>();
  const bans = memoize(withoutActors);
  return (names, source, revision) => {
    const { mesh } = source;
    if (indexed !== mesh.entries) {
      byName = groupByNode(mesh.entries.values());
      indexed = mesh.entries;
      entriesOf.clear();
    }
    const known = [...new Set([...names, everyNode])].filter((name) => byName.has(name));
    const key = known.join('\n');
    let entries = entriesOf.get(key);
    if (entries === undefined) entriesOf.set(key, (entries = mergeEntries(known, byName)));
    const { policies, policyRevision, rollout } = mesh;
    return {
      ...source,
      revision,
      mesh: {
        revision: mesh.revision,
        entries,
        policies,
        bans: bans(mesh.bans),
        ...(policyRevision === undefined ? {} : { policyRevision }),
        ...(rollout === undefined ? {} : { rollout }),
      },
    };
  };
}

/** What every node answers to. */
export const everyNode = '*';

/**
 * What leads from `before` to `after`; undefined when they say the same. Entries, policies and bans are told apart by
 * the revision that last changed them, so both must be of one server.
 */
export function diffViews(before: NodeView, after: Omit<NodeView, 'revision'>): ViewDelta | undefined {
  const entries = diffShared(before.mesh.entries, after.mesh.entries);
  const policies = diffShared(before.mesh.policies, after.mesh.policies);
  const bans = diffShared(before.mesh.bans, after.mesh.bans);
  const delta: ViewDelta = {
    baseRevision: before.revision,
    revision: before.revision + 1,
    meshRevision: after.mesh.revision,
    putEntries: entries.put,
    deleteEntries: entries.removed.map(({ id }) => id),
    putPolicies: policies.put,
    deletePolicies: policies.removed.map(({ key }) => key),
    putBans: bans.put,
    deleteBans: bans.removed.map(({ kind, value }) => ({ kind, value })),
    bundle: before.bundle.sequence === after.bundle.sequence ? undefined : after.bundle,
    jwtBundle: before.jwtBundle.sequence === after.jwtBundle.sequence ? undefined : after.jwtBundle,
    crls: sameBytes(before.crls, after.crls) ? undefined : after.crls,
    outgoing: sameOutgoing(before.outgoing, after.outgoing) ? undefined : after.outgoing,
    settings: sameSettings(before.settings, after.settings) ? undefined : after.settings,
    policyRevision:
      before.mesh.policyRevision?.signature === after.mesh.policyRevision?.signature
        ? undefined
        : after.mesh.policyRevision,
    rollout: diffRollouts(before.mesh.rollout, after.mesh.rollout),
  };
  return isEmpty(delta) && before.mesh.revision === after.mesh.revision ? undefined : delta;
}

/**
 * The view that follows. Whatever does not follow is a gap: the caller asks for a full view.
 * @throws MeshError `view_gap`
 */
export function applyDelta(view: NodeView, delta: ViewDelta): NodeView {
  if (delta.baseRevision !== view.revision || delta.revision !== view.revision + 1) {
    throw new MeshError(
      'view_gap',
      `the change leads from revision ${delta.baseRevision} to ${delta.revision}, and ${view.revision} is held`,
    );
  }
  const { mesh } = view;
  const policyRevision = delta.policyRevision ?? mesh.policyRevision;
  const rollout = stepRollout(mesh.rollout, delta.rollout, policyRevision);
  return {
    revision: delta.revision,
    mesh: {
      ...(policyRevision === undefined ? {} : { policyRevision }),
      ...(rollout === undefined ? {} : { rollout }),
      revision: delta.meshRevision,
      entries: step(mesh.entries, delta.deleteEntries, delta.putEntries, ({ id }) => id),
      policies: step(mesh.policies, delta.deletePolicies, delta.putPolicies, ({ key }) => key),
      bans: step(mesh.bans, delta.deleteBans.map(banKey), delta.putBans, banKey),
    },
    bundle: delta.bundle ?? view.bundle,
    jwtBundle: delta.jwtBundle ?? view.jwtBundle,
    crls: delta.crls ?? view.crls,
    outgoing: delta.outgoing ?? view.outgoing,
    settings: delta.settings ?? view.settings,
  };
}

/** The same view for an agent that would not know what to do with a rollout: it goes on with what is in force. */
export function withoutRollout<V extends Omit<NodeView, 'revision'>>(view: V): V {
  if (view.mesh.rollout === undefined) return view;
  const { rollout: _rollout, ...mesh } = view.mesh;
  return { ...view, mesh };
}

/** What is tried is told with the first step. */
function diffRollouts(
  before: StagedRollout | undefined,
  after: StagedRollout | undefined,
): StagedRollout | undefined {
  if (after === undefined || before?.state.signature === after.state.signature) return undefined;
  return before?.state.id === after.state.id ? { ...after, changes: nothingChanged } : after;
}

/** With other policies in force the one before is over. What is tried stays the same object while it is the same. */
function stepRollout(
  before: StagedRollout | undefined,
  next: StagedRollout | undefined,
  inForce: PolicyRevision | undefined,
): StagedRollout | undefined {
  if (next === undefined) return before?.state.base === inForce?.number ? before : undefined;
  const isSame = before?.state.id === next.state.id && next.state.stage !== 'ended';
  return isSame ? { ...next, changes: before.changes } : next;
}

type Revised = { readonly revision: number };
type MapDiff<T> = { readonly put: readonly T[]; readonly removed: readonly T[] };

function diffMaps<T extends Revised>(
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
): MapDiff<T> {
  if (before === after) return { put: [], removed: [] };
  const put = [...after].flatMap(([key, value]) =>
    before.get(key)?.revision === value.revision ? [] : value,
  );
  const removed = [...before].flatMap(([key, value]) => (after.has(key) ? [] : value));
  return { put, removed };
}

/** For maps that nodes have in common: of a thousand nodes the first pays. */
function diffShared<T extends Revised>(
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
): MapDiff<T> {
  if (before === after) return { put: [], removed: [] };
  let known = sharedDiffs.get(before);
  if (known === undefined) sharedDiffs.set(before, (known = new WeakMap()));
  let diff = known.get(after) as MapDiff<T> | undefined;
  if (diff === undefined) known.set(after, (diff = diffMaps(before, after)));
  return diff;
}

const sharedDiffs = new WeakMap<object, WeakMap<object, MapDiff<unknown>>>();

/** The same map when nothing changes, so that what was compiled from it stays good. */
function step<T>(
  map: ReadonlyMap<string, T>,
  remove: readonly string[],
  put: readonly T[],
  keyOf: (value: T) => string,
): ReadonlyMap<string, T> {
  if (remove.length === 0 && put.length === 0) return map;
  const next = new Map(map);
  for (const key of remove) next.delete(key);
  for (const value of put) next.set(keyOf(value), value);
  return next;
}

function mergeEntries(
  names: readonly string[],
  byName: ReadonlyMap<string, readonly RegistrationEntry[]>,
): ReadonlyMap<string, RegistrationEntry> {
  const all = names.flatMap((name) => byName.get(name) ?? []);
  return new Map(all.map((entry) => [entry.id, entry]));
}

function groupByNode(
  entries: Iterable<RegistrationEntry>,
): ReadonlyMap<string, readonly RegistrationEntry[]> {
  const byName = new Map<string, RegistrationEntry[]>();
  for (const entry of entries) {
    for (const name of entry.nodes ?? []) {
      const filed = byName.get(name);
      if (filed === undefined) byName.set(name, [entry]);
      else filed.push(entry);
    }
  }
  return byName;
}

function withoutActors(bans: ReadonlyMap<string, Ban>): ReadonlyMap<string, Ban> {
  return new Map([...bans].map(([key, ban]) => [key, { ...ban, actor: { kind: 'system' } }]));
}

function memoize<A extends object, B>(work: (value: A) => B): (value: A) => B {
  const known = new WeakMap<A, { readonly made: B }>();
  return (value) => {
    let found = known.get(value);
    if (found === undefined) known.set(value, (found = { made: work(value) }));
    return found.made;
  };
}

function sameBytes(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a === b || (a.length === b.length && a.every((bytes, at) => bytesEqual(bytes, b[at] ?? nothing)));
}

function sameOutgoing(a: readonly OutgoingIssuer[], b: readonly OutgoingIssuer[]): boolean {
  return (
    a.length === b.length &&
    a.every(
      (one, at) => one.keyId === b[at]?.keyId && one.urgent === b[at].urgent && one.nodes === b[at].nodes,
    )
  );
}

function sameSettings(a: ViewSettings, b: ViewSettings): boolean {
  return (
    a.trustDomain === b.trustDomain &&
    a.rootNamespace === b.rootNamespace &&
    a.ttlSeconds === b.ttlSeconds &&
    a.maxStalenessSeconds === b.maxStalenessSeconds &&
    a.auditLogKey === b.auditLogKey
  );
}

function isEmpty(delta: ViewDelta): boolean {
  const { putEntries, deleteEntries, putPolicies, deletePolicies, putBans, deleteBans } = delta;
  const lists = [putEntries, deleteEntries, putPolicies, deletePolicies, putBans, deleteBans];
  // A list of revocation lists that has become empty is a change as well.
  const wholes = [
    delta.bundle,
    delta.jwtBundle,
    delta.crls,
    delta.outgoing,
    delta.settings,
    delta.policyRevision,
    delta.rollout,
  ];
  return lists.every(({ length }) => length === 0) && wholes.every((whole) => whole === undefined);
}

const nothing = new Uint8Array(0);
const nothingChanged: StagedRollout['changes'] = { put: [], deleted: [] };
