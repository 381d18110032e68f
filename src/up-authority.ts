import type { Actor, AuthorityEvent } from './audit/event.ts';
import { type Authority, createAuthority } from './ca/authority.ts';
import { type ChainPart, checkImport, checkIssuerChain } from './ca/chain.ts';
import { readCsr } from './ca/csr.ts';
import { openAuthorityCertificate } from './ca/issuer.ts';
import type { CaKey, KeyCustody } from './ca/key-port.ts';
import type { LintLeaf } from './ca/lint.ts';
import type { Profile } from './ca/profile.ts';
import type { RefusedKeys } from './ca/refused-keys.ts';
import { rotate } from './ca/rotation.ts';
import type { RotationEffect, RotationEvent } from './ca/rotation-event.ts';
import type { RandomBytes } from './ca/serial.ts';
import { type Evidence, publishedRoots, type RotationState, signerOf } from './ca/slot.ts';
import type { StoredAuthority, StoredRequest } from './ca/stored.ts';
import { createAuthorityRequest, createIntermediate, createRoot, type CreatedAuthority } from './ca/x509.ts';
import type { Clock } from './clock.ts';
import { MeshError } from './errors.ts';
import { createNotice } from './identity/notice.ts';
import { createTurns } from './identity/turns.ts';
import { makeBundle, type TrustBundle } from './spiffe/bundle.ts';
import { bytesEqual } from './spiffe/der.ts';
import type { TrustDomain } from './spiffe/id.ts';
import type { Store } from './store/store.ts';
import {
  authorityEvent,
  type Certificates,
  corrupt,
  importedKeys,
  keysOf,
  materialOf,
  storedOf,
} from './up-authority-material.ts';
import { refusalError } from './up-refusal.ts';

/** The certificate authority of this process. */
export type KeptAuthority = {
  /** The one that signs now. @throws MeshError `authority_waiting` */
  readonly current: () => Authority;
  /** What proxies verify with: all roots that are not retired. @throws MeshError `authority_waiting` */
  readonly bundle: () => TrustBundle;
  /** All that are not retired, the oldest first. */
  readonly stored: () => readonly StoredAuthority[];
  readonly state: () => RotationState;
  /** The key that waits for a certificate from elsewhere. */
  readonly request: () => StoredRequest | null;
  /** Whether what `authority` prepared may still be signed: its root is published, and it was not replaced as tainted. */
  readonly mayStillSign: (authority: Authority) => boolean;
  /** Calls back when the bundle has changed. */
  readonly onChange: (listener: () => void) => () => void;
  /**
   * Takes one step of a rotation and all that follows from it. Steps happen one after the other; each is durable, with
   * its events, before anybody sees its effect.
   * @throws MeshError `rotation_unproven`, `rotation_out_of_order`, `authority_not_found`, `csr_not_waiting`, `chain_*`
   *   (import), `issuer_expired` (the root has too little left), `store_unavailable`
   */
  readonly step: (wish: RotationWish, actor: Actor) => Promise<void>;
  /** Does what is due. @returns whether anything was */
  readonly tick: () => Promise<boolean>;
};

/** What somebody may ask for; the evidence is gathered, and a chain proven, when its turn has come. */
export type RotationWish =
  | Extract<RotationEvent, { kind: 'rotate' | 'taint' }>
  | { readonly kind: 'activate'; readonly force: boolean }
  | { readonly kind: 'retire'; readonly force: boolean }
  | { readonly kind: 'import'; readonly chain: readonly ChainPart[] };

/** A moment at which a crash must do no harm. Tests end the process there. */
export type Failpoint = 'keys_sealed' | 'stored' | 'published' | 'signer_switched' | 'keys_forgotten';

export type AuthorityParts = {
  readonly store: Pick<Store, 'loadAuthorities' | 'loadRequest' | 'commitAuthorities' | 'readMeta'>;
  readonly custody: KeyCustody;
  readonly trustDomain: TrustDomain;
  readonly profile: Profile;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly evidence: () => Promise<Evidence>;
  /** Why no evidence counts now; null when it does. */
  readonly doubt: () => string | null;
  /** Replace what these issuers signed. */
  readonly reissue: (issuerKeyIds: readonly string[]) => void;
  /** Keys no leaf may hold, SHA-256 of the SPKI in hex: an operator's list, and what else of ours signs. Default none. */
  readonly refusedKeys?: ReadonlySet<string>;
  readonly otherKeys?: () => Iterable<string>;
  /** Judges the leaves; default: on this thread. */
  readonly lint?: LintLeaf;
  /** A step was taken; for the log. */
  readonly report?: (event: AuthorityEvent) => void;
  readonly failpoint?: (name: Failpoint) => void;
};

/**
 * Opens the stored authority in whatever state a crash has left it.
 * @param begin `create` makes root and intermediate on the first start, and refuses to go on while the first
 *   intermediate waits for its certificate; `as_is` does neither, for commands that set an authority up
 * @throws MeshError `authority_waiting`, `key_passphrase_wrong`, `file_missing`, `file_permissions`, `authority_invalid`,
 *   `store_corrupt`
 */
export async function openAuthority(
  parts: AuthorityParts,
  begin: 'create' | 'as_is' = 'create',
): Promise<KeptAuthority> {
  const { clock, custody, trustDomain, failpoint = () => undefined } = parts;
  const notice = createNotice();
  const inTurn = createTurns(1);
  const certificates: Certificates = new Map();
  let request = await parts.store.loadRequest();
  let state = await load(parts, certificates, request);
  let own = ownKeys(certificates, request);
  let authority: Authority | undefined;
  let bundle: TrustBundle | undefined;
  const refused: RefusedKeys = {
    own: () => (parts.otherKeys === undefined ? own : new Set([...own, ...parts.otherKeys()])),
    listed: parts.refusedKeys ?? new Set(),
  };

  /** @returns whether the state changed */
  async function follow(first: RotationEvent, given: Fresh, actor: Actor): Promise<boolean> {
    let changed = false;
    const pending = [{ event: first, fresh: given }];
    for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
      const { event, fresh } = next;
      const [after, effects] = rotate(state, event, clock.now());
      const refusal = effects.find((effect) => effect.kind === 'refuse');
      if (refusal !== undefined) throw refusalError(refusal.refusal);
      if (after !== state) {
        await take(after, effects, fresh, actor);
        changed = true;
      }
      for (const effect of effects) {
        if (effect.kind === 'make') pending.push(await makeKeys(effect.rootKeyId));
        if (effect.kind === 'request') pending.push(await makeRequest());
      }
    }
    return changed;
  }

  /** INVARIANT: stored first, in one transaction with its events; only then does anybody see a new bundle or signer. */
  async function take(
    after: RotationState,
    effects: readonly RotationEffect[],
    fresh: Fresh,
    actor: Actor,
  ): Promise<void> {
    const known: Certificates = new Map([...certificates, ...fresh.certificates]);
    // Whatever cannot be opened is never stored as what is to be used.
    const signs = effects.some(({ kind }) => kind === 'sign_with');
    const nextAuthority = signs ? await assemble(parts, after, known, refused, fresh.keys) : undefined;
    const nextBundle = bundleOf(parts, after, known);
    const nextRequest = after.requested === null ? null : (fresh.request ?? request);
    const context = { now: clock.now(), trustDomain, actor };
    const events = effects.flatMap((effect) =>
      effect.kind === 'record' ? [authorityEvent(context, effect, after, known)] : [],
    );
    const changed = after.slots.filter((slot) => !state.slots.includes(slot));
    await parts.store.commitAuthorities(
      changed.map((slot) => storedOf(slot, known)),
      after.sequence,
      nextRequest,
      events,
    );
    failpoint('stored');
    for (const [keyId, material] of fresh.certificates) certificates.set(keyId, material);
    const published = state.sequence !== after.sequence;
    state = after;
    request = nextRequest;
    own = ownKeys(certificates, request);
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
        for (const keyId of effect.keyIds) custody.forget(keyId);
        failpoint('keys_forgotten');
      }
    }
    for (const event of events) parts.report?.(event);
  }

  /** Keys first, then the rows that name them: a crash in between leaves a key nobody uses, never a row without a key. */
  async function makeKeys(rootKeyId: string | null): Promise<Pending> {
    const { authorityKey } = parts.profile;
    const now = clock.now();
    const created: CreatedAuthority[] = [];
    // Sealing may take half a second each: together.
    const [signerKey, rootKey] = await Promise.all([
      custody.create(authorityKey),
      rootKeyId === null ? custody.create(authorityKey) : custody.open(rootKeyId),
    ]);
    if (rootKeyId === null) created.push(await createRoot({ ...parts, now, key: rootKey }));
    const certificate = created[0]?.certificate ?? materialOf(certificates, rootKeyId ?? '').certificate;
    const root = { certificate, key: rootKey };
    created.push(await createIntermediate({ ...parts, now, publicKey: signerKey.publicKey, root }));
    failpoint('keys_sealed');
    return {
      event: { kind: 'made', keys: keysOf(created, rootKeyId) },
      fresh: {
        certificates: new Map(
          created.map(({ keyId, certificate: der }) => [keyId, { certificate: der, upstream: [] }]),
        ),
        keys: [signerKey],
      },
    };
  }

  async function makeRequest(): Promise<Pending> {
    const key = await custody.create(parts.profile.authorityKey);
    const csr = await createAuthorityRequest(key, trustDomain);
    failpoint('keys_sealed');
    return {
      event: { kind: 'requested', keyId: key.keyId },
      fresh: { ...nothingFresh, request: { keyId: key.keyId, csr } },
    };
  }

  function proveImport(handedIn: readonly ChainPart[]): Pending {
    if (request === null) {
      throw refusalError({ code: 'csr_not_waiting', why: 'no key waits for a certificate' });
    }
    const chain = checkIssuerChain(handedIn, trustDomain);
    checkImport(chain, handedIn, readCsr(request.csr), clock.now());
    const known = certificates.get(chain.root.keyId);
    if (known !== undefined && !bytesEqual(known.certificate, chain.root.der)) {
      throw new MeshError(
        'chain_root_known',
        'the root of the chain has a key we know under another certificate',
        {
          place: handedIn.at(-1)?.place ?? { file: 'chain', line: 1, column: 1 },
          fix: 'give the root as `countersign trust-bundle` prints it; a root that is renewed needs a new key',
        },
      );
    }
    const upstream = chain.upstream.map(({ der }) => der);
    return {
      event: { kind: 'imported', ...importedKeys(chain) },
      fresh: {
        keys: [],
        certificates: new Map([
          [chain.root.keyId, { certificate: chain.root.der, upstream: [] }],
          [chain.signer.keyId, { certificate: chain.signer.der, upstream }],
        ]),
      },
    };
  }

  if (signerOf(state) !== undefined) {
    authority = await assemble(parts, state, certificates, refused, []);
    bundle = bundleOf(parts, state, certificates);
    // A crash may have come between the row that says so and the deed.
    for (const { keyId, state: at } of state.slots) if (at === 'retired') custody.forget(keyId);
  } else if (state.slots.length > 0) {
    throw corrupt('no active intermediate');
  } else if (begin === 'create') {
    if (request !== null) throw waiting();
    // Nobody holds anything yet, so the first keys are in force at once.
    const { event, fresh } = await makeKeys(null);
    await follow(event, fresh, system);
  }

  return {
    current: () => authority ?? raise(waiting()),
    bundle: () => bundle ?? raise(waiting()),
    stored: () =>
      state.slots.filter((slot) => slot.state !== 'retired').map((slot) => storedOf(slot, certificates)),
    state: () => state,
    request: () => request,
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
        // INVARIANT: proven in turn: what was seen before another step says nothing of the time after it.
        switch (wish.kind) {
          case 'activate':
          case 'retire':
            return follow({ ...wish, evidence: await parts.evidence() }, nothingFresh, actor);
          case 'import': {
            const { event, fresh } = proveImport(wish.chain);
            return follow(event, fresh, actor);
          }
          case 'rotate':
          case 'taint':
            return follow(wish, nothingFresh, actor);
          default:
            return wish satisfies never;
        }
      });
    },
    tick: () =>
      inTurn(async () => {
        // To ask for every certificate once a minute would be a waste: mostly nobody has to be waited for.
        const waits = state.slots.some(({ kind, state: at }) => kind === 'intermediate' && at === 'retiring');
        const evidence = waits ? await parts.evidence() : { holders: [], doubt: parts.doubt() };
        return follow({ kind: 'tick', evidence }, nothingFresh, system);
      }),
  };
}

/** What came with an event and is not yet anywhere else. */
type Fresh = {
  readonly certificates: Certificates;
  /** In hand, so that they need not be opened again. */
  readonly keys: readonly CaKey[];
  readonly request?: StoredRequest;
};
type Pending = { readonly event: RotationEvent; readonly fresh: Fresh };

async function load(
  { store }: AuthorityParts,
  certificates: Certificates,
  request: StoredRequest | null,
): Promise<RotationState> {
  const slots = (await store.loadAuthorities()).map(({ certificate, upstream, ...slot }) => {
    certificates.set(slot.keyId, { certificate, upstream });
    return slot;
  });
  const sequence = Number((await store.readMeta('bundle_sequence')) ?? '0');
  if (!Number.isSafeInteger(sequence) || sequence < 0) throw corrupt('a bundle without a sequence');
  return { slots, sequence, requested: request?.keyId ?? null };
}

async function assemble(
  parts: AuthorityParts,
  state: RotationState,
  certificates: Certificates,
  refused: RefusedKeys,
  inHand: readonly CaKey[],
): Promise<Authority> {
  const signer = signerOf(state);
  if (signer === undefined) throw corrupt('no active intermediate');
  const key = inHand.find(({ keyId }) => keyId === signer.keyId) ?? (await parts.custody.open(signer.keyId));
  return createAuthority({
    ...parts,
    root: materialOf(certificates, signer.rootKeyId),
    intermediate: { ...materialOf(certificates, signer.keyId), key },
    refused,
    bundleSequence: state.sequence,
  });
}

function bundleOf(
  { trustDomain }: AuthorityParts,
  state: RotationState,
  certificates: Certificates,
): TrustBundle | undefined {
  const roots = publishedRoots(state).map(({ keyId }) => materialOf(certificates, keyId).certificate);
  return roots.length === 0 ? undefined : makeBundle(trustDomain, roots, state.sequence);
}

/** Every key that signs or ever signed for us, and those above. */
function ownKeys(certificates: Certificates, request: StoredRequest | null): ReadonlySet<string> {
  const ders = [...certificates.values()].flatMap(({ certificate, upstream }) => [certificate, ...upstream]);
  const keys = ders.map((der) => openAuthorityCertificate(der).publicKey);
  if (request !== null) keys.push(readCsr(request.csr));
  return new Set(keys.map(({ spkiSha256 }) => spkiSha256));
}

function waiting(): MeshError {
  return new MeshError('authority_waiting', 'the intermediate CA waits for its certificate', {
    fix: 'have the output of `countersign ca csr` signed, then use `countersign ca import <chain.pem>`',
  });
}

function raise(error: MeshError): never {
  throw error;
}

const nothingFresh: Fresh = { certificates: new Map(), keys: [] };
const system: Actor = { kind: 'system' };
