import type { Evidence, Holder } from '../ca/slot.ts';

/** What a secret holds, as far as rotation is concerned. */
export type SecretContent =
  | { readonly kind: 'bundle'; readonly sequence: number }
  | {
      readonly kind: 'svid';
      readonly spiffeId: string;
      readonly serial: string;
      readonly issuerKeyId: string;
      readonly notAfter: Date;
      /**
       * Of the bundle that came in one message with it, where the protocol has no acknowledgement: who presents this
       * certificate has read that message. Sent once more with a later bundle, the first is what counts.
       */
      readonly bundleSequence?: number;
    };

/** A process that is sent secrets. The kernel names it; `node` is what it calls itself, for people. */
export type CoverageClient = {
  readonly uid: number;
  readonly pid: number;
  readonly node: string;
  /** The attested node it runs on; absent on the machine of the authority itself. */
  readonly host?: string;
};

/** A certificate that was recorded as issued; its issuer is empty when it was issued by an earlier version. */
export type IssuedCertificate = {
  readonly serial: string;
  readonly spiffeId: string;
  readonly entryId: string;
  readonly issuerKeyId: string;
  readonly notAfter: Date;
};

/** One row of what is kept; both are opaque to whoever keeps it. */
export type CoverageRow = { readonly key: string; readonly record: string };
export type CoverageChange = { readonly put: readonly CoverageRow[]; readonly remove: readonly string[] };

/**
 * Who has what: for each process and each name of a secret, what it confirmed last and what it was sent since. It only
 * ever errs to one side: what is not in here counts as not confirmed.
 */
export type Coverage = {
  /** A secret leaves for a process. Say so before it can arrive. */
  readonly sent: (client: CoverageClient, name: string, content: SecretContent, at: Date) => void;
  /** A process has taken a secret into use, in place of all it was sent before under this name. */
  readonly confirmed: (client: CoverageClient, name: string, content: SecretContent, at: Date) => void;
  /**
   * Who may have an unexpired certificate in use.
   * @param issued all certificates that have not expired at `now`
   * @param isOver those that nobody can use all the same; default: none
   */
  readonly evidence: (
    issued: readonly IssuedCertificate[],
    now: Date,
    doubt: string | null,
    isOver?: IsOver,
  ) => Evidence;
  /** What has changed since the last call. Now and then it also drops what is over by `now`. */
  readonly takeChange: (now: Date) => CoverageChange;
};

/** Whether nobody can use a certificate any more, though it has not ended. */
export type IsOver = (certificate: Pick<IssuedCertificate, 'serial' | 'spiffeId' | 'notAfter'>) => boolean;

type Leaf = Extract<SecretContent, { kind: 'svid' }>;

type Holding = {
  readonly uid: number;
  readonly pid: number;
  readonly host?: string;
  node: string;
  readonly name: string;
  lastSeen: Date;
  /** Confirmed: the bundle or certificate that is in use for sure. */
  confirmed: SecretContent | null;
  /** Sent since, and perhaps in use. */
  sent: SecretContent[];
  /** No longer in use here: certificates that something newer was confirmed in place of. */
  replaced: (Pick<Leaf, 'serial' | 'notAfter'> & Partial<Pick<Leaf, 'spiffeId'>>)[];
};

/** Beyond this a process or a name is not followed, and so never counts as having confirmed anything. */
export const maxHoldings = 200_000;
/** The same for the processes of one attested node: it says itself how many it has. */
export const maxHoldingsPerHost = 20_000;
// What is dropped counts as unconfirmed. A proxy that renews has one or two that have not ended.
const maxReplaced = 16;
const maxSent = 16;
// A process that verifies and presents nothing is remembered as long as the longest certificate lives.
const idleMs = 86_400_000;
const pruneMs = 60_000;

/**
 * Goes on from rows that {@link Coverage.takeChange} once gave; a row that cannot be read is as if it were lost.
 * @param doubtful certificates of which more may have been given out than the rows say, because the last rows of a
 *   process that crashed were never kept: until they expire, somebody unknown counts as holding each of them
 */
export function createCoverage(
  rows: readonly CoverageRow[],
  doubtful: readonly Pick<Leaf, 'serial' | 'notAfter'>[] = [],
): Coverage {
  const holdings = new Map<string, Holding>();
  const changed = new Set<string>();
  // Certificates are shared: one that somebody else confirmed may also be with a process that is not followed.
  const unfollowed = new Map(doubtful.map(({ serial, notAfter }) => [serial, notAfter]));
  let prunedAtMs = -Infinity;
  for (const { key, record } of rows) {
    const holding = parseHolding(record);
    if (holding !== null && keyOf(holding, holding.name) === key) holdings.set(key, holding);
    else changed.add(key);
  }
  let perHost = countHosts(holdings);
  const holdingOf = (client: CoverageClient, name: string, at: Date): Holding | undefined => {
    const key = keyOf(client, name);
    let holding = holdings.get(key);
    if (holding === undefined) {
      const ofHost = client.host === undefined ? 0 : (perHost.get(client.host) ?? 0);
      if (holdings.size >= maxHoldings || ofHost >= maxHoldingsPerHost) return undefined;
      if (client.host !== undefined) perHost.set(client.host, ofHost + 1);
      holding = { ...client, name, lastSeen: at, confirmed: null, sent: [], replaced: [] };
      holdings.set(key, holding);
    }
    changed.add(key);
    holding.node = client.node;
    holding.lastSeen = at;
    return holding;
  };
  return {
    sent: (client, name, content, at) => {
      const holding = holdingOf(client, name, at);
      if (holding === undefined) {
        // A node that invents processes can only hurt what it says of itself.
        const hasRoom = client.host === undefined || unfollowed.size < maxHoldings;
        if (content.kind === 'svid' && hasRoom) unfollowed.set(content.serial, content.notAfter);
        return;
      }
      if (holding.sent.some((other) => sameContent(other, content))) return;
      // What is dropped here belongs to nobody from now on, and so counts as unconfirmed.
      holding.sent = [...holding.sent, content].slice(-maxSent);
    },
    confirmed: (client, name, content, at) => {
      const holding = holdingOf(client, name, at);
      if (holding === undefined) return;
      const before = [holding.confirmed, ...holding.sent];
      holding.confirmed = content;
      holding.sent = [];
      for (const old of before) {
        if (old?.kind !== 'svid' || sameContent(old, content)) continue;
        holding.replaced.push({ serial: old.serial, notAfter: old.notAfter, spiffeId: old.spiffeId });
      }
      holding.replaced = holding.replaced.slice(-maxReplaced);
    },
    evidence: (issued, now, doubt, isOver = () => false) => ({
      holders: holdersOf(holdings, unfollowed, issued, { now, isOver }),
      doubt,
    }),
    takeChange: (now) => {
      if (Math.abs(now.getTime() - prunedAtMs) >= pruneMs) {
        prunedAtMs = now.getTime();
        for (const key of prune(holdings, now)) changed.add(key);
        perHost = countHosts(holdings);
        for (const [serial, notAfter] of unfollowed) if (notAfter <= now) unfollowed.delete(serial);
      }
      const put: CoverageRow[] = [];
      const remove: string[] = [];
      for (const key of changed) {
        const holding = holdings.get(key);
        if (holding === undefined) remove.push(key);
        else put.push({ key, record: JSON.stringify(holding) });
      }
      changed.clear();
      return { put, remove };
    },
  };
}

function countHosts(holdings: ReadonlyMap<string, Holding>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { host } of holdings.values()) {
    if (host !== undefined) counts.set(host, (counts.get(host) ?? 0) + 1);
  }
  return counts;
}

type Client = {
  node: string;
  lastSeen: Date;
  sequence: number | null | undefined;
  /** The oldest bundle that came with a certificate it may present. */
  carried: number | undefined;
  /** Whether it may present a certificate that came without a bundle. */
  isMute: boolean;
  readonly leaves: Map<string, Leaf>;
};

function holdersOf(
  holdings: ReadonlyMap<string, Holding>,
  unfollowed: ReadonlyMap<string, Date>,
  issued: readonly IssuedCertificate[],
  { now, isOver }: { readonly now: Date; readonly isOver: IsOver },
): readonly Holder[] {
  const clients = new Map<string, Client>();
  const idOf = new Map(issued.map(({ serial, spiffeId }) => [serial, spiffeId]));
  const accounted = new Set<string>();
  // INVARIANT: a node may speak of its own identities alone, so a serial counts only with the identity it was issued for.
  const account = (serial: string, spiffeId: string | undefined): void => {
    if (spiffeId === undefined || idOf.get(serial) === spiffeId) accounted.add(serial);
  };
  for (const holding of holdings.values()) {
    const { node, lastSeen, confirmed, sent, replaced } = holding;
    const key = processOf(holding);
    const client = clients.get(key) ?? {
      node,
      lastSeen,
      sequence: undefined,
      carried: undefined,
      isMute: false,
      leaves: new Map(),
    };
    clients.set(key, client);
    if (lastSeen > client.lastSeen) [client.node, client.lastSeen] = [node, lastSeen];
    for (const content of [confirmed, ...sent]) {
      if (content?.kind !== 'svid') continue;
      account(content.serial, content.spiffeId);
      if (content.notAfter <= now || isOver(content)) continue;
      client.leaves.set(content.serial, content);
      if (content.bundleSequence === undefined) client.isMute = true;
      else client.carried = Math.min(client.carried ?? Infinity, content.bundleSequence);
    }
    for (const { serial, spiffeId } of replaced) account(serial, spiffeId);
    if (confirmed?.kind === 'bundle' || sent.some(({ kind }) => kind === 'bundle')) {
      // The oldest of what it verifies with under different names; unconfirmed weighs more than any.
      const own = confirmed?.kind === 'bundle' ? confirmed.sequence : null;
      client.sequence = client.sequence === undefined ? own : least(client.sequence, own);
    }
  }
  const holders: Holder[] = [];
  for (const client of clients.values()) {
    const { node, lastSeen, leaves } = client;
    const sequence = oldestBundle(client);
    for (const [spiffeId, own] of Map.groupBy(leaves.values(), (leaf) => leaf.spiffeId)) {
      holders.push({ spiffeId, node, lastSeen, sequence, leaves: own });
    }
  }
  // Given out some other way, or to somebody who was forgotten: nobody can say what its holder trusts.
  for (const certificate of issued) {
    const { serial, spiffeId, issuerKeyId, notAfter } = certificate;
    if ((accounted.has(serial) && !unfollowed.has(serial)) || notAfter <= now || isOver(certificate))
      continue;
    const leaves = [{ issuerKeyId, notAfter }];
    holders.push({ spiffeId, node: '', lastSeen: null, sequence: null, leaves });
  }
  return holders;
}

/** What a process verifies with for sure; null when nobody can say. */
function oldestBundle({ sequence, carried, isMute }: Client): number | null {
  if (carried === undefined) return sequence ?? null;
  if (sequence === undefined) return isMute ? null : carried;
  return least(sequence, carried);
}

function least(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : Math.min(a, b);
}

/** Forgets what no longer matters. @returns the keys that changed */
function prune(holdings: Map<string, Holding>, now: Date): readonly string[] {
  const keys: string[] = [];
  const presenting = new Set<string>();
  for (const holding of holdings.values()) {
    const over = holding.replaced.filter(({ notAfter }) => notAfter <= now);
    if (over.length > 0) {
      holding.replaced = holding.replaced.filter(({ notAfter }) => notAfter > now);
      keys.push(keyOf(holding, holding.name));
    }
    const live = [holding.confirmed, ...holding.sent].some(
      (content) => content?.kind === 'svid' && content.notAfter > now,
    );
    if (live || holding.replaced.length > 0) presenting.add(processOf(holding));
  }
  for (const [key, holding] of holdings) {
    if (presenting.has(processOf(holding))) continue;
    const verifies = [holding.confirmed, ...holding.sent].some((content) => content?.kind === 'bundle');
    if (verifies && now.getTime() - holding.lastSeen.getTime() < idleMs) continue;
    holdings.delete(key);
    keys.push(key);
  }
  return keys;
}

// The process, not the connection or what it calls itself: it is one trust, however often it connects. A pid that was
// given away belongs to nobody who could still present anything.
function keyOf({ uid, pid, host }: Omit<CoverageClient, 'node'>, name: string): string {
  return JSON.stringify(host === undefined ? [uid, pid, name] : [uid, pid, name, host]);
}

function processOf({ uid, pid, host = '' }: Omit<CoverageClient, 'node'>): string {
  return `${uid}/${pid}/${host}`;
}

function sameContent(a: SecretContent, b: SecretContent): boolean {
  if (a.kind === 'svid') return b.kind === 'svid' && a.serial === b.serial;
  return b.kind === 'bundle' && a.sequence === b.sequence;
}

function parseHolding(record: string): Holding | null {
  try {
    const value = JSON.parse(record, (key, inner: unknown) =>
      (key === 'lastSeen' || key === 'notAfter') && typeof inner === 'string' ? new Date(inner) : inner,
    ) as Holding;
    const whole =
      Number.isSafeInteger(value.uid) &&
      Number.isSafeInteger(value.pid) &&
      typeof value.node === 'string' &&
      typeof value.name === 'string' &&
      value.lastSeen instanceof Date &&
      Array.isArray(value.sent) &&
      Array.isArray(value.replaced) &&
      value.confirmed !== undefined;
    return whole ? value : null;
  } catch {
    return null;
  }
}
