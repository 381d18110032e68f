import { createHash } from 'node:crypto';
import type { Actor, AuthorityEvent } from './audit/event.ts';
import { type Authority, createAuthority } from './ca/authority.ts';
import { openAuthorityCertificate } from './ca/issuer.ts';
import type { Profile } from './ca/profile.ts';
import { rotate, type RotationEffect, type RotationEvent } from './ca/rotation.ts';
import type { RandomBytes } from './ca/serial.ts';
import { type Evidence, publishedRoots, type RotationState, signerOf } from './ca/slot.ts';
import type { StoredAuthority } from './ca/stored.ts';
import { type CreatedAuthority, createIntermediate, createRoot } from './ca/x509.ts';
import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import { createNotice } from './identity/notice.ts';
import { createTurns } from './identity/turns.ts';
import { makeBundle, type TrustBundle } from './spiffe/bundle.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import { forgetKey, openStoredKey, sealNewKeys } from './up-keys.ts';
import { refusalError } from './up-refusal.ts';

/** The certificate authority of this process. */
export type KeptAuthority = {
  /** The one that signs now. */
  readonly current: () => Authority;
  /** What proxies verify with: all roots that are not retired. */
  readonly bundle: () => TrustBundle;
  /** All that are not retired, the oldest first. */
  readonly stored: () => readonly StoredAuthority[];
  readonly state: () => RotationState;
  /** Whether what `authority` prepared may still be signed: its root is published, and it was not replaced as tainted. */
  readonly mayStillSign: (authority: Authority) => boolean;
  /** Calls back when the bundle has changed. */
  readonly onChange: (listener: () => void) => () => void;
  /**
   * Takes one step of a rotation and all that follows from it. Steps happen one after the other; each is durable, with
   * its events, before anybody sees its effect.
   * @throws MeshError `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`, `issuer_expired` (the root has
   *   too little left), `store_unavailable`
   */
  readonly step: (wish: RotationWish, actor: Actor) => Promise<void>;
  /** Does what is due. @returns whether anything was */
  readonly tick: () => Promise<boolean>;
};

/** What somebody may ask for; the evidence is gathered when its turn has come. */
export type RotationWish =
  | Extract<RotationEvent, { kind: 'rotate' | 'taint' }>
  | { readonly kind: 'activate'; readonly force: boolean }
  | { readonly kind: 'retire'; readonly force: boolean };

/** A moment at which a crash must do no harm. Tests end the process there. */
export type Failpoint = 'keys_sealed' | 'stored' | 'published' | 'signer_switched' | 'keys_forgotten';

export type AuthorityParts = {
  readonly store: Pick<Store, 'loadAuthorities' | 'commitAuthorities' | 'readMeta'>;
  readonly keyDir: string;
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly passphrase: Uint8Array;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly evidence: () => Promise<Evidence>;
  /** Why no evidence counts now; null when it does. */
  readonly doubt: () => string | null;
  /** Replace what these issuers signed. */
  readonly reissue: (issuerKeyIds: readonly string[]) => void;
  /** A step was taken; for the log. */
  readonly report?: (event: AuthorityEvent) => void;
  readonly failpoint?: (name: Failpoint) => void;
};

/**
 * Opens the stored authority in whatever state a crash has left it, or creates root and intermediate on the first start.
 * @throws MeshError `key_passphrase_wrong`, `file_missing`, `file_permissions`, `authority_invalid`, `store_corrupt`
 */
export async function openAuthority(parts: AuthorityParts): Promise<KeptAuthority> {
  const { clock, failpoint = () => undefined } = parts;
  const notice = createNotice();
  const inTurn = createTurns(1);
  const certificates = new Map<string, Uint8Array>();
  let state: RotationState = await load(parts, certificates);
  let authority: Authority;
  let bundle: TrustBundle;

  /** @returns whether the state changed */
  async function follow(first: RotationEvent, actor: Actor): Promise<boolean> {
    let changed = false;
    const pending = [{ event: first, created: [] as readonly CreatedAuthority[] }];
    for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
      const { event, created } = next;
      const [after, effects] = rotate(state, event, clock.now());
      const refusal = effects.find((effect) => effect.kind === 'refuse');
      if (refusal !== undefined) throw refusalError(refusal.refusal);
      if (after !== state) {
        await take(after, effects, created, actor);
        changed = true;
      }
      for (const effect of effects) {
        if (effect.kind !== 'make') continue;
        const made = await makeKeys(effect.rootKeyId);
        failpoint('keys_sealed');
        pending.push({
          event: { kind: 'made', keys: made.map(keyOf(made, effect.rootKeyId)) },
          created: made,
        });
      }
    }
    return changed;
  }

  /** INVARIANT: stored first, in one transaction with its events; only then does anybody see a new bundle or signer. */
  async function take(
    after: RotationState,
    effects: readonly RotationEffect[],
    created: readonly CreatedAuthority[],
    actor: Actor,
  ): Promise<void> {
    for (const { keyId, certificate } of created) certificates.set(keyId, certificate);
    // Whatever cannot be opened is never stored as what is to be used.
    const signs = effects.some(({ kind }) => kind === 'sign_with');
    const nextAuthority = signs ? await assemble(parts, after, certificates, created) : undefined;
    const nextBundle = bundleOf(parts, after, certificates);
    const events = effects.flatMap((effect) =>
      effect.kind === 'record' ? [authorityEvent(parts, effect, after, certificates, actor)] : [],
    );
    const changed = after.slots.filter((slot) => !state.slots.includes(slot));
    await parts.store.commitAuthorities(
      changed.map((slot) => storedOf(slot, certificates)),
      after.sequence,
      events,
    );
    failpoint('stored');
    const published = state.sequence !== after.sequence;
    state = after;
    bundle = nextBundle;
    authority = nextAuthority ?? authority;
    if (published) {
      notice.announce();
      failpoint('published');
    }
    if (signs) failpoint('signer_switched');
    for (const effect of effects) {
      if (effect.kind === 'reissue') parts.reissue(effect.issuerKeyIds);
      if (effect.kind === 'forget') {
        for (const keyId of effect.keyIds) forgetKey(parts.keyDir, keyId);
        failpoint('keys_forgotten');
      }
    }
    for (const event of events) parts.report?.(event);
  }

  /** Keys first, then the rows that name them: a crash in between leaves a key nobody uses, never a row without a key. */
  async function makeKeys(rootKeyId: string | null): Promise<readonly CreatedAuthority[]> {
    const now = clock.now();
    const created: CreatedAuthority[] = [];
    if (rootKeyId === null) {
      const root = await createRoot({ ...parts, now });
      created.push(root, await createIntermediate({ ...parts, now, root }));
    } else {
      const root = {
        certificate: certificateOf(certificates, rootKeyId),
        privateKey: await openStoredKey(parts, rootKeyId),
      };
      created.push(await createIntermediate({ ...parts, now, root }));
    }
    await sealNewKeys(parts, created);
    return created;
  }

  if (signerOf(state) === undefined) {
    if (state.slots.length > 0) throw corrupt('no active intermediate');
    // Nobody holds anything yet, so the first keys are in force at once.
    const created = await makeKeys(null);
    failpoint('keys_sealed');
    const event = { kind: 'made', keys: created.map(keyOf(created, null)) } as const;
    const [after, effects] = rotate(state, event, clock.now());
    await take(after, effects, created, system);
  } else {
    authority = await assemble(parts, state, certificates, []);
    bundle = bundleOf(parts, state, certificates);
    // A crash may have come between the row that says so and the deed.
    for (const { keyId, state: at } of state.slots) if (at === 'retired') forgetKey(parts.keyDir, keyId);
  }

  return {
    current: () => authority,
    bundle: () => bundle,
    stored: () =>
      state.slots.filter((slot) => slot.state !== 'retired').map((slot) => storedOf(slot, certificates)),
    state: () => state,
    mayStillSign: ({ issuerKeyId }) => {
      const issuer = state.slots.find(({ keyId }) => keyId === issuerKeyId);
      // A tainted one that still is the one that signs goes on: without it nobody gets a certificate.
      if (issuer === undefined || issuer.state === 'retired') return false;
      if (issuer.tainted && issuer.state !== 'active') return false;
      return publishedRoots(state).some(({ keyId }) => keyId === issuer.rootKeyId);
    },
    onChange: notice.subscribe,
    step: async (wish, actor) => {
      await inTurn(async () => {
        // INVARIANT: gathered in turn: what was seen before another step says nothing of the time after it.
        const event: RotationEvent =
          wish.kind === 'activate' || wish.kind === 'retire'
            ? { ...wish, evidence: await parts.evidence() }
            : wish;
        return follow(event, actor);
      });
    },
    tick: () =>
      inTurn(async () => {
        // To ask for every certificate once a minute would be a waste: mostly nobody has to be waited for.
        const waits = state.slots.some(({ kind, state: at }) => kind === 'intermediate' && at === 'retiring');
        const evidence = waits ? await parts.evidence() : { holders: [], doubt: parts.doubt() };
        return follow({ kind: 'tick', evidence }, system);
      }),
  };
}

async function load(
  { store }: AuthorityParts,
  certificates: Map<string, Uint8Array>,
): Promise<RotationState> {
  const slots = (await store.loadAuthorities()).map(({ certificate, ...slot }) => {
    certificates.set(slot.keyId, certificate);
    return slot;
  });
  const sequence = Number((await store.readMeta('bundle_sequence')) ?? '0');
  if (!Number.isSafeInteger(sequence) || sequence < 0) throw corrupt('a bundle without a sequence');
  return { slots, sequence };
}

async function assemble(
  parts: AuthorityParts,
  state: RotationState,
  certificates: ReadonlyMap<string, Uint8Array>,
  created: readonly CreatedAuthority[],
): Promise<Authority> {
  const signer = signerOf(state);
  if (signer === undefined) throw corrupt('no active intermediate');
  const { trustDomain, profile, randomBytes } = parts;
  const inHand = created.find(({ keyId }) => keyId === signer.keyId)?.privateKey;
  return createAuthority({
    trustDomain,
    root: { certificate: certificateOf(certificates, signer.rootKeyId) },
    intermediate: {
      certificate: certificateOf(certificates, signer.keyId),
      privateKey: inHand ?? (await openStoredKey(parts, signer.keyId)),
    },
    profile,
    randomBytes,
    bundleSequence: state.sequence,
  });
}

function bundleOf(
  { trustDomain }: AuthorityParts,
  state: RotationState,
  certificates: ReadonlyMap<string, Uint8Array>,
): TrustBundle {
  const roots = publishedRoots(state).map(({ keyId }) => certificateOf(certificates, keyId));
  return makeBundle(trustDomain, roots, state.sequence);
}

function authorityEvent(
  { clock, trustDomain }: AuthorityParts,
  { action, keyId, evidence }: Extract<RotationEffect, { kind: 'record' }>,
  { slots }: RotationState,
  certificates: ReadonlyMap<string, Uint8Array>,
  actor: Actor,
): AuthorityEvent {
  const slot = slots.find((one) => one.keyId === keyId);
  if (slot === undefined) throw new MeshError('internal', 'an event names a CA that is not there');
  const certificate = certificateOf(certificates, keyId);
  return {
    type: 'authority',
    time: clock.now(),
    action,
    actor,
    evidence,
    kind: slot.kind,
    trustDomain: trustDomain.name,
    serial: openAuthorityCertificate(certificate).serial,
    keyId,
    notBefore: slot.notBefore,
    notAfter: slot.notAfter,
    certificateSha256: createHash('sha256').update(certificate).digest('hex'),
  };
}

function keyOf(created: readonly CreatedAuthority[], rootKeyId: string | null) {
  const root = rootKeyId ?? created.find(({ kind }) => kind === 'root')?.keyId ?? '';
  return ({ kind, keyId, notBefore, notAfter }: CreatedAuthority) => ({
    kind,
    keyId,
    rootKeyId: root,
    notBefore,
    notAfter,
  });
}

function storedOf(
  slot: RotationState['slots'][number],
  certificates: ReadonlyMap<string, Uint8Array>,
): StoredAuthority {
  return { ...slot, certificate: certificateOf(certificates, slot.keyId) };
}

function certificateOf(certificates: ReadonlyMap<string, Uint8Array>, keyId: string): Uint8Array {
  const certificate = certificates.get(keyId);
  if (certificate === undefined) throw corrupt('a CA without its certificate');
  return certificate;
}

function corrupt(what: string): MeshError {
  return new MeshError('store_corrupt', `the store holds ${what}`, {
    fix: 'restore the data directory from a backup',
  });
}

const system: Actor = { kind: 'system' };
