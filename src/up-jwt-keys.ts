import { createPrivateKey, createPublicKey, generateKeyPair, hash } from 'node:crypto';
import { promisify } from 'node:util';
import type { Actor, JwtKeyEvent as KeyRecord } from './audit/event.ts';
import { jwtAlgorithmOf } from './ca/jwt.ts';
import {
  type JwtKeyEffect,
  type JwtKeyEvent,
  type JwtKeyRefusal,
  type MadeJwtKey,
  rotateJwtKeys,
} from './ca/jwt-rotation.ts';
import {
  type JwtEvidence,
  type JwtKeyState,
  type JwtKeyType,
  jwtSignerOf,
  publishedJwtKeys,
} from './ca/jwt-slot.ts';
import { readPublicKey } from './ca/public-key.ts';
import type { Clock } from './clock.ts';
import { MeshError, quote } from './errors.ts';
import type { JwtSigner } from './identity/jwt-issuer.ts';
import { createNotice } from './identity/notice.ts';
import { createTurns } from './identity/turns.ts';
import { bytesEqual, hexOf } from './spiffe/der.ts';
import type { JwtBundle } from './spiffe/jwt-bundle.ts';
import type { Store } from './store/store.ts';
import { forgetKey, type KeyParts, openStoredKey, sealNewKeys } from './up-keys.ts';

/** The JWT keys of this process. */
export type KeptJwtKeys = {
  /** The one that signs now. @throws MeshError `jwt_key_missing` */
  readonly signer: () => JwtSigner;
  /** What tokens are verified with. The same value until it changes. */
  readonly bundle: () => JwtBundle;
  readonly state: () => JwtKeyState;
  readonly evidence: () => Promise<JwtEvidence>;
  /** Whether what was prepared for a key may still be signed: it is published. */
  readonly mayStillSign: (keyId: string) => boolean;
  /** Calls back when the bundle has changed. */
  readonly onChange: (listener: () => void) => () => void;
  /**
   * Takes one step of a rotation and all that follows from it. Steps happen one after the other; each is durable, with
   * its events, before anybody sees its effect.
   * @throws MeshError `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`, `store_unavailable`
   */
  readonly step: (wish: JwtWish, actor: Actor) => Promise<void>;
  /** Does what is due. @returns whether anything was */
  readonly tick: () => Promise<boolean>;
};

/** What somebody may ask for; the evidence is gathered when its turn has come. */
export type JwtWish =
  | Extract<JwtKeyEvent, { kind: 'rotate' | 'taint' }>
  | { readonly kind: 'activate' | 'retire'; readonly force: boolean };

/** A moment at which a crash must do no harm. Tests end the process there. */
export type JwtFailpoint =
  'jwt_key_sealed' | 'jwt_stored' | 'jwt_published' | 'jwt_signer_switched' | 'jwt_key_forgotten';

export type JwtKeyParts = KeyParts & {
  readonly store: Pick<Store, 'loadJwtKeys' | 'commitJwtKeys' | 'jwtExpiries' | 'readMeta'>;
  readonly clock: Clock;
  /** Of keys made from now on; those there are stay. */
  readonly keyType: JwtKeyType;
  /** Why the time is not to be relied upon; null when it is. */
  readonly doubt: () => string | null;
  /** A step was taken; for the log. */
  readonly report?: (event: KeyRecord) => void;
  readonly failpoint?: (name: JwtFailpoint) => void;
};

/**
 * Opens the stored JWT keys in whatever state a crash has left them, or makes the first one.
 * @throws MeshError `key_passphrase_wrong`, `file_missing`, `file_permissions`, `authority_invalid`, `store_corrupt`
 */
export async function openJwtKeys(parts: JwtKeyParts): Promise<KeptJwtKeys> {
  const { store, clock, failpoint = () => undefined } = parts;
  const notice = createNotice();
  const inTurn = createTurns(1);
  const servedSince = clock.now();
  let state = await load(parts);
  let bundle = bundleOf(parts, state);
  let signer = await openSigner(parts, state);
  // Sealed, and in no row: its step failed. The next one takes it, or a store that is ill for long would fill the disk.
  let spare: MadeJwtKey | undefined;
  // A crash may have come between the row that says so and the deed.
  for (const { keyId, state: at } of state.slots) if (at === 'retired') forgetKey(parts.keyDir, keyId);

  const evidence = async (): Promise<JwtEvidence> => ({
    servedSince,
    lastExpiries: await store.jwtExpiries(),
    doubt: parts.doubt(),
  });

  /** @returns whether the state changed */
  async function follow(first: JwtKeyEvent, actor: Actor): Promise<boolean> {
    let changed = false;
    const pending = [first];
    for (let event = pending.shift(); event !== undefined; event = pending.shift()) {
      const [after, effects] = rotateJwtKeys(state, event, clock.now());
      const refusal = effects.find((effect) => effect.kind === 'refuse');
      if (refusal !== undefined) throw refusalError(refusal.refusal);
      const key = spare;
      if (event.kind === 'made') spare = undefined;
      if (after !== state) {
        await take(after, effects, actor).catch((error: unknown) => {
          // A key whose file was lost or damaged meanwhile is not tried again.
          if (error instanceof MeshError && error.code === 'store_unavailable') spare = key;
          throw error;
        });
        changed = true;
      }
      if (effects.some(({ kind }) => kind === 'replace')) pending.push({ kind: 'replace' });
      if (!effects.some(({ kind }) => kind === 'make')) continue;
      // Key first, then the row that names it: a crash in between leaves a key nobody uses, never a row without a key.
      spare ??= await sealNewKey(parts);
      failpoint('jwt_key_sealed');
      pending.push({ kind: 'made', key: spare });
    }
    return changed;
  }

  /** INVARIANT: stored first, in one transaction with its events; only then does anybody see a new bundle or signer. */
  async function take(after: JwtKeyState, effects: readonly JwtKeyEffect[], actor: Actor): Promise<void> {
    const next = jwtSignerOf(after);
    // Whatever cannot be opened is never stored as what is to be used.
    const nextSigner = next?.keyId === signer?.keyId ? signer : await openSigner(parts, after);
    const events = effects.flatMap((effect) =>
      effect.kind === 'record' ? [keyRecord(parts, effect, after, actor)] : [],
    );
    const changed = after.slots.filter((slot) => !state.slots.includes(slot));
    await store.commitJwtKeys(changed, after.sequence, events);
    failpoint('jwt_stored');
    const isPublished = state.sequence !== after.sequence;
    const isSwitched = nextSigner !== signer;
    state = after;
    signer = nextSigner;
    if (isPublished) {
      bundle = bundleOf(parts, after);
      notice.announce();
      failpoint('jwt_published');
    }
    if (isSwitched) failpoint('jwt_signer_switched');
    for (const effect of effects) {
      if (effect.kind !== 'forget') continue;
      for (const keyId of effect.keyIds) forgetKey(parts.keyDir, keyId);
      failpoint('jwt_key_forgotten');
    }
    for (const event of events) parts.report?.(event);
  }

  // Without a key nothing can be signed: nobody waits for the first tick.
  if (signer === undefined) await follow({ kind: 'tick', evidence: await evidence() }, system);

  return {
    signer: () => {
      if (signer !== undefined) return signer;
      throw new MeshError('jwt_key_missing', 'no key can sign tokens until the next one is made', {
        fix: 'ask again in a minute, and look at the log of the server if that does not help',
      });
    },
    bundle: () => bundle,
    state: () => state,
    evidence,
    mayStillSign: (keyId) => publishedJwtKeys(state).some((slot) => slot.keyId === keyId),
    onChange: notice.subscribe,
    step: async (wish, actor) => {
      await inTurn(async () => {
        // INVARIANT: gathered in turn: what was seen before another step says nothing of the time after it.
        const event: JwtKeyEvent = 'force' in wish ? { ...wish, evidence: await evidence() } : wish;
        return follow(event, actor);
      });
    },
    tick: () => inTurn(async () => follow({ kind: 'tick', evidence: await evidence() }, system)),
  };
}

async function load({ store }: JwtKeyParts): Promise<JwtKeyState> {
  const sequence = Number((await store.readMeta('jwt_bundle_sequence')) ?? '0');
  if (!Number.isSafeInteger(sequence) || sequence < 0) {
    throw new MeshError('store_corrupt', 'the store holds a JWT bundle without a sequence', {
      fix: 'restore the data directory from a backup',
    });
  }
  return { slots: await store.loadJwtKeys(), sequence };
}

async function sealNewKey(parts: JwtKeyParts): Promise<MadeJwtKey> {
  const { keyType } = parts;
  const generate = promisify(generateKeyPair);
  const pair =
    keyType === 'ec-p256'
      ? await generate('ec', { namedCurve: 'P-256' })
      : await generate('rsa', { modulusLength: 2_048 });
  const publicKey = new Uint8Array(pair.publicKey.export({ type: 'spki', format: 'der' }));
  const keyId = hexOf(readPublicKey(publicKey).keyId);
  const privateKey = new Uint8Array(pair.privateKey.export({ type: 'pkcs8', format: 'der' }));
  try {
    await sealNewKeys(parts, [{ keyId, privateKey }]);
  } finally {
    privateKey.fill(0);
  }
  return { keyId, keyType, publicKey };
}

async function openSigner(parts: JwtKeyParts, state: JwtKeyState): Promise<JwtSigner | undefined> {
  const slot = jwtSignerOf(state);
  if (slot === undefined) return undefined;
  const { keyId, publicKey } = slot;
  const pkcs8 = await openStoredKey(parts, keyId);
  const privateKey = createPrivateKey({
    key: Buffer.from(pkcs8.buffer, pkcs8.byteOffset, pkcs8.length),
    format: 'der',
    type: 'pkcs8',
  });
  pkcs8.fill(0);
  const own = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
  if (!bytesEqual(own, publicKey)) {
    throw new MeshError(
      'authority_invalid',
      `the sealed key ${quote(keyId)} is not the one that is published`,
      {
        fix: 'restore it from a backup',
      },
    );
  }
  return { keyId, algorithm: jwtAlgorithmOf(privateKey), privateKey };
}

function bundleOf({ trustDomain }: JwtKeyParts, state: JwtKeyState): JwtBundle {
  // INVARIANT: one sequence, one bundle: the order is the same after a restart, whatever the clock was.
  const authorities = publishedJwtKeys(state)
    .map(({ keyId, publicKey }) => ({ keyId, publicKey }))
    .sort((a, b) => (a.keyId < b.keyId ? -1 : 1));
  return { trustDomain, authorities, sequence: state.sequence };
}

function keyRecord(
  { clock, trustDomain }: JwtKeyParts,
  { action, keyId, evidence }: Extract<JwtKeyEffect, { kind: 'record' }>,
  { slots, sequence }: JwtKeyState,
  actor: Actor,
): KeyRecord {
  const slot = slots.find((one) => one.keyId === keyId);
  if (slot === undefined) throw new MeshError('internal', 'an event names a JWT key that is not there');
  return {
    type: 'jwt_key',
    time: clock.now(),
    action,
    actor,
    evidence,
    trustDomain: trustDomain.name,
    keyId,
    keyType: slot.keyType,
    spkiSha256: hash('sha256', slot.publicKey, 'hex'),
    sequence,
  };
}

function refusalError(refusal: JwtKeyRefusal): MeshError {
  switch (refusal.code) {
    case 'rotation_unproven':
      return new MeshError(refusal.code, refusal.why, {
        fix: 'wait until then, or use --force, which is recorded; see `countersign ca status`',
      });
    case 'rotation_out_of_order':
      return new MeshError(refusal.code, refusal.why, { fix: refusal.fix });
    case 'authority_not_found':
      return new MeshError(refusal.code, refusal.why, { fix: 'see `countersign ca status`' });
    default:
      return refusal satisfies never;
  }
}

const system: Actor = { kind: 'system' };
