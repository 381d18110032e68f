import type { SpiffeId } from '../spiffe/id.ts';
import { mayRenewOverNetwork, type RegistrationEntry } from './entry.ts';
import type { Selector, SelectorKind } from './selector.ts';

/** The registration entries of one mesh revision, indexed for matching. Immutable. */
export type Registry = {
  readonly size: number;
  readonly entry: (id: string) => RegistrationEntry | undefined;
  /**
   * The entries that a caller on this machine with these selectors is entitled to, the default one first. An entry
   * matches when all its selectors were attested and it has not expired at `now`, and it is not for other nodes.
   *
   * The default is the entry that says most about the caller: the one with the most selectors; among equals the one
   * whose id sorts first. It does not depend on the order in which entries were made.
   */
  readonly match: (selectors: readonly Selector[], now: Date) => readonly RegistrationEntry[];
  /** The earliest expiry after `now` among entries these selectors match, so that a watcher knows when to look again. */
  readonly nextExpiry: (selectors: readonly Selector[], now: Date) => Date | null;
  /**
   * The entry under which whoever shows a certificate of this identity is given the next one, at `now`: the one that
   * says so, and is for this machine. Undefined when there is none, and when there are several, for no certificate tells
   * which of them it was made under.
   */
  readonly renewable: (id: SpiffeId, now: Date) => RegistrationEntry | undefined;
  /** The kinds of selectors that some entry names, expired or not. */
  readonly kinds: ReadonlySet<SelectorKind>;
};

/**
 * Indexes entries. Each is filed under one of its selectors, the most telling kind first, so that a match looks only
 * at entries that share a selector with the caller, however large the registry is.
 */
export function indexEntries(entries: Iterable<RegistrationEntry>): Registry {
  const byId = new Map<string, RegistrationEntry>();
  const byAnchor = new Map<string, RegistrationEntry[]>();
  const byRenewable = new Map<string, RegistrationEntry[]>();
  const kinds = new Set<SelectorKind>();
  for (const entry of entries) {
    byId.set(entry.id, entry);
    // INVARIANT: an entry of attested nodes matches nobody here. What a node is sent of it does not name nodes.
    if (entry.nodes !== undefined && entry.nodes.length > 0) continue;
    for (const { kind } of entry.selectors) kinds.add(kind);
    if (mayRenewOverNetwork(entry)) {
      const { text } = entry.spiffeId;
      byRenewable.set(text, [...(byRenewable.get(text) ?? []), entry]);
    }
    const anchor = anchorOf(entry);
    if (anchor === undefined) continue;
    const filed = byAnchor.get(anchor.text);
    if (filed === undefined) byAnchor.set(anchor.text, [entry]);
    else filed.push(entry);
  }
  const entitled = (selectors: readonly Selector[], now: Date): RegistrationEntry[] => {
    const attested = new Set(selectors.map((selector) => selector.text));
    const found: RegistrationEntry[] = [];
    for (const text of attested) {
      for (const entry of byAnchor.get(text) ?? []) {
        if (isLive(entry, now) && entry.selectors.every((selector) => attested.has(selector.text)))
          found.push(entry);
      }
    }
    return found.sort(byPrecedence);
  };
  return {
    size: byId.size,
    entry: (id) => byId.get(id),
    match: entitled,
    nextExpiry: (selectors, now) =>
      entitled(selectors, now).reduce<Date | null>(
        (earliest, { expiresAt }) =>
          expiresAt !== null && (earliest === null || expiresAt < earliest) ? expiresAt : earliest,
        null,
      ),
    renewable: (id, now) => {
      const live = (byRenewable.get(id.text) ?? []).filter((entry) => isLive(entry, now));
      return live.length === 1 ? live[0] : undefined;
    },
    kinds,
  };
}

/** Whether an entry still matches anything at `now`. */
export function isLive(entry: RegistrationEntry, now: Date): boolean {
  return entry.expiresAt === null || now < entry.expiresAt;
}

function anchorOf(entry: RegistrationEntry): Selector | undefined {
  for (const kind of anchorOrder) {
    const selector = entry.selectors.find((candidate) => candidate.kind === kind);
    if (selector !== undefined) return selector;
  }
  return undefined;
}

function byPrecedence(a: RegistrationEntry, b: RegistrationEntry): number {
  return b.selectors.length - a.selectors.length || (a.id < b.id ? -1 : 1);
}

// INVARIANT: every kind is in it, or entries with that kind alone would never match.
const anchorOrder = Object.keys({
  'unix:sha256': true,
  'k8s:pod-uid': true,
  'k8s:pod-name': true,
  'docker:image-id': true,
  'k8s:container-image': true,
  'systemd:unit': true,
  'k8s:sa': true,
  'unix:path': true,
  'docker:label': true,
  'docker:image': true,
  'k8s:pod-label': true,
  'unix:ancestor-path': true,
  'unix:user': true,
  'unix:uid': true,
  'k8s:container-name': true,
  'k8s:ns': true,
  'unix:gid': true,
  'k8s:node-name': true,
} satisfies Record<SelectorKind, true>) as readonly SelectorKind[];
