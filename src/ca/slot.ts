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
  /** A root whose private key is not kept here: what it is to sign goes out as a request and comes back by import. */
  readonly offline: boolean;
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
  /** The key of an intermediate that waits for a certificate from elsewhere; null when none does. */
  readonly requested: string | null;
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

/** The roots that proxies are told to trust, those published first first. */
export function publishedRoots({ slots }: RotationState): readonly Slot[] {
  // INVARIANT: one sequence, one bundle: the order is the same after a restart, whatever the dates of the roots are.
  return slots
    .filter(({ kind, state }) => kind === 'root' && state !== 'retired')
    .sort((a, b) => a.publishedIn - b.publishedIn || (a.keyId < b.keyId ? -1 : 1));
}

/** The one intermediate that signs. */
export function signerOf({ slots }: RotationState): Slot | undefined {
  return slots.find(({ kind, state }) => kind === 'intermediate' && state === 'active');
}

/** The slot of a key. */
export function slotOf({ slots }: RotationState, keyId: string): Slot | undefined {
  return slots.find((slot) => slot.keyId === keyId);
}

/** The root that is signed under. */
export function activeRoot({ slots }: RotationState): Slot | undefined {
  return slots.find(({ kind, state }) => kind === 'root' && state === 'active');
}

/** The root that is published and waits to be signed under; there is at most one. */
export function preparedRoot({ slots }: RotationState): Slot | undefined {
  return slots.find(({ kind, state }) => kind === 'root' && state === 'prepared');
}

/** The intermediate that will sign once its prepared root is in force. */
export function preparedSigner({ slots }: RotationState, root: Slot | undefined): Slot | undefined {
  return slots.find(
    ({ kind, state, rootKeyId, tainted }) =>
      kind === 'intermediate' && state === 'prepared' && rootKeyId === root?.keyId && !tainted,
  );
}

/**
 * The intermediates whose leaves are to be replaced, the oldest first: those of another root than the one that is signed
 * under, and those whose key, or root's key, is tainted. Urgent: somebody else may have the key, or nobody trusts the
 * root any more.
 */
export function outgoingIssuers(
  state: RotationState,
  now: Date,
): readonly { readonly keyId: string; readonly urgent: boolean }[] {
  const signer = signerOf(state);
  if (signer === undefined) return [];
  return state.slots
    .filter(({ kind, state: at }) => kind === 'intermediate' && (at === 'retiring' || at === 'retired'))
    .flatMap(({ keyId, rootKeyId, tainted, notAfter }) => {
      const root = slotOf(state, rootKeyId);
      const urgent = tainted || root === undefined || root.tainted || root.state === 'retired';
      const isOutgoing = notAfter > now && (urgent || rootKeyId !== signer.rootKeyId);
      return isOutgoing ? { keyId, urgent } : [];
    })
    .slice(-maxOutgoing);
}

/** How much of the life of a key is left, 0 to 1; below 0 when it is over. */
export function lifeLeft({ notBefore, notAfter }: Slot, now: Date): number {
  return (notAfter.getTime() - now.getTime()) / (notAfter.getTime() - notBefore.getTime());
}

/** Those with an unexpired certificate who have not confirmed the bundle `sequence` or a later one. */
export function unconfirmed(evidence: Evidence, sequence: number, now: Date): readonly Laggard[] {
  return evidence.holders.flatMap((holder) => {
    const until = lastExpiry(holder.leaves, now);
    if (until === null || (holder.sequence ?? 0) >= sequence) return [];
    const why =
      (holder.sequence ?? 0) === 0
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

// Leaves live a day at most: nobody replaces a CA more often within it.
const maxOutgoing = 64;
