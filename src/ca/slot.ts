/** The kinds of key that rotate. A root is published in the bundle; an intermediate signs under one. */
export type SlotKind = 'root' | 'intermediate';

/**
 * Where a key stands:
 *
 * - `prepared`: a root is published, and nothing is signed under it yet
 * - `active`: a root is published and the one intermediate that signs is under it
 * - `retiring`: a root is still published and an intermediate's leaves are still valid, but neither signs any more
 * - `retired`: not published, signs nothing, its private key is forgotten
 */
export type SlotState = 'prepared' | 'active' | 'retiring' | 'retired';

/** One key in rotation. */
export type Slot = {
  readonly kind: SlotKind;
  /** Subject key identifier, lower-case hex. */
  readonly keyId: string;
  /** The key that proxies trust it by: the root's, which for a root is its own. */
  readonly rootKeyId: string;
  readonly state: SlotState;
  /** Believed stolen: it is replaced as fast as that is safe. */
  readonly tainted: boolean;
  /** The sequence of the first bundle that held the root; 0 for an intermediate. */
  readonly publishedIn: number;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** All keys and the bundle they make. */
export type RotationState = {
  readonly slots: readonly Slot[];
  /** Of the bundle in force; grows by one with every change of the bundle. */
  readonly sequence: number;
};

/** A workload, or one of its proxies, that may have an unexpired certificate of ours in use. */
export type Holder = {
  readonly spiffeId: string;
  /** What the proxy calls itself; empty when no proxy is known to have the certificate. */
  readonly node: string;
  readonly lastSeen: Date | null;
  /** The oldest bundle it may still verify with; null when it has confirmed none. */
  readonly sequence: number | null;
  /** What it may present. An issuer nobody knows (empty) may be any. */
  readonly leaves: readonly { readonly issuerKeyId: string; readonly notAfter: Date }[];
};

/** What is known of those who hold certificates. */
export type Evidence = {
  readonly holders: readonly Holder[];
  /** Why the evidence cannot be relied upon (the clock was moved, say); null when it can. */
  readonly doubt: string | null;
};

/** A holder that makes a step unsafe. */
export type Laggard = Pick<Holder, 'spiffeId' | 'node' | 'lastSeen'> & {
  readonly why: string;
  /** When its last certificate expires, and it with it. */
  readonly until: Date;
};

/** The roots that proxies are told to trust. */
export function publishedRoots({ slots }: RotationState): readonly Slot[] {
  return slots.filter(({ kind, state }) => kind === 'root' && state !== 'retired');
}

/** The one intermediate that signs. */
export function signerOf({ slots }: RotationState): Slot | undefined {
  return slots.find(({ kind, state }) => kind === 'intermediate' && state === 'active');
}

/** Those with an unexpired certificate who have not confirmed the bundle `sequence` or a later one. */
export function unconfirmed(evidence: Evidence, sequence: number, now: Date): readonly Laggard[] {
  return evidence.holders.flatMap((holder) => {
    const until = lastExpiry(holder.leaves, now);
    if (until === null || (holder.sequence ?? 0) >= sequence) return [];
    const why =
      holder.sequence === null
        ? 'has confirmed no bundle'
        : `has confirmed bundle ${holder.sequence}, not ${sequence}`;
    return laggard(holder, why, until);
  });
}

/** Those who may still present a certificate of one of the issuers. */
export function presenters(
  evidence: Evidence,
  issuerKeyIds: ReadonlySet<string>,
  now: Date,
): readonly Laggard[] {
  return evidence.holders.flatMap((holder) => {
    const leaves = holder.leaves.filter(
      ({ issuerKeyId }) => issuerKeyId === '' || issuerKeyIds.has(issuerKeyId),
    );
    const until = lastExpiry(leaves, now);
    return until === null ? [] : laggard(holder, 'may present a certificate of the old CA', until);
  });
}

function lastExpiry(leaves: Holder['leaves'], now: Date): Date | null {
  const last = leaves.reduce((latest, { notAfter }) => Math.max(latest, notAfter.getTime()), 0);
  return last > now.getTime() ? new Date(last) : null;
}

function laggard({ spiffeId, node, lastSeen }: Holder, why: string, until: Date): Laggard {
  return { spiffeId, node, lastSeen, why, until };
}
