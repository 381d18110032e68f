import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import { membersOf, readJsonObject } from '../spiffe/inspect-json.ts';
import { readPublicJwk, secretMember, spkiOf } from '../spiffe/jwk.ts';
import { isKeyId, type JwtAuthority } from '../spiffe/jwt-bundle.ts';

/** A published key, and the one algorithm it is for when its publisher says so. */
export type PublishedKey = { readonly authority: JwtAuthority; readonly alg: string | null };

/** Finds the key of a `kid`; undefined when there is none. @throws MeshError `node_attestor_unavailable` */
export type FindKey = (keyId: string) => Promise<PublishedKey | undefined>;

export type KeySourceParts = {
  /** Reads the JWKS as it is now. @throws Error */
  readonly fetch: () => Promise<string>;
  readonly clock: Clock;
  readonly warn: (message: string, detail: object) => void;
};

/** However many tokens name keys that are not there, keys are not read more often than this. */
export const keyCooldownMs = 30_000;
/** Keys this old are read again when somebody asks; those older than a day count no longer. */
export const keyAgeMs = 300_000;
const keyLifeMs = 86_400_000;

/** Keeps the keys of an issuer. They are read when they are asked for, and when one is not among them. */
export function createKeySource({ fetch, clock, warn }: KeySourceParts): FindKey {
  let held: { readonly keys: ReadonlyMap<string, PublishedKey>; readonly atMs: number } | undefined;
  let triedMs: number | undefined;
  let running: Promise<void> | undefined;

  async function refresh(): Promise<void> {
    try {
      const keys = parseJwks(await fetch());
      held = { keys, atMs: clock.now().getTime() };
    } catch (error) {
      warn('the keys of a cluster cannot be read', { error: String(error) });
    } finally {
      running = undefined;
    }
  }

  return async (keyId) => {
    const nowMs = clock.now().getTime();
    // A clock that was put back makes a time of the future of one that was noted; hence the distance.
    const since = (ms: number): number => Math.abs(nowMs - ms);
    const isWanted = held === undefined || !held.keys.has(keyId) || since(held.atMs) >= keyAgeMs;
    if (isWanted && running === undefined && (triedMs === undefined || since(triedMs) >= keyCooldownMs)) {
      // INVARIANT: noted before it is tried, so that what fails is not tried at once again.
      triedMs = nowMs;
      running = refresh();
    }
    if (isWanted && running !== undefined) await running;
    if (held === undefined || since(held.atMs) >= keyLifeMs) {
      throw new MeshError('node_attestor_unavailable', 'the cluster cannot be asked about the token now', {
        fix: 'try again later',
      });
    }
    return held.keys.get(keyId);
  };
}

/**
 * Reads a JWKS: keys without a name, of other types and for other uses are left out.
 * @throws Error when it is no JWKS, has too many keys, a secret one, or one name for two
 * @see RFC 7517 section 5
 */
export function parseJwks(text: string): ReadonlyMap<string, PublishedKey> {
  const { members, duplicates } = readJsonObject(text, 'the JWKS');
  const list = members.get('keys');
  if (duplicates.length > 0) throw new Error(`the JWKS has ${duplicates.join(', ')} twice`);
  if (!Array.isArray(list) || list.length > maxKeys)
    throw new Error(`the JWKS has no keys, or over ${maxKeys}`);
  const keys = new Map<string, PublishedKey>();
  for (const item of list) {
    const jwk = membersOf(item);
    if (jwk === undefined) throw new Error('the JWKS has a key that is no object');
    const secret = secretMember(jwk);
    if (secret !== undefined) throw new Error(`the JWKS has a secret key: it has ${secret}`);
    const [keyId, use, alg] = [jwk.get('kid'), jwk.get('use'), jwk.get('alg')];
    const operations = jwk.get('key_ops') ?? ['verify'];
    const isForUs =
      (use === undefined || use === 'sig') && Array.isArray(operations) && operations.includes('verify');
    if (typeof keyId !== 'string' || !isKeyId(keyId) || !isForUs) continue;
    const read = readPublicJwk(jwk);
    if (!('key' in read)) continue;
    if (keys.has(keyId)) throw new Error('the JWKS has two keys of one name');
    keys.set(keyId, {
      authority: { keyId, publicKey: spkiOf(read.key) },
      alg: typeof alg === 'string' ? alg : null,
    });
  }
  if (keys.size === 0) throw new Error('the JWKS has no key that tokens are signed with');
  return keys;
}

const maxKeys = 64;
