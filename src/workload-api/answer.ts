import { asBuffer } from '../grpc/as-buffer.ts';
import type { ErrorCode } from '../errors.ts';
import type { EntitledBundles } from '../identity/bundle-watch.ts';
import type { SecretContent } from '../identity/coverage.ts';
import type { WorkloadCredentials, X509Svid } from '../identity/credentials.ts';
import type { Entitlement } from '../identity/entitlement.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { JwtBundle } from '../spiffe/jwt-bundle.ts';
import type { JWTBundlesResponse, X509BundlesResponse, X509SVIDResponse } from '../wire/workload.ts';

/** What a stream does when the state of its caller is another. */
export type Answer<Response> =
  | { readonly kind: 'send'; readonly response: Response; readonly delivers: readonly Delivered[] }
  | { readonly kind: 'nothing' }
  | Denial;

/** A caller that may have nothing, or nothing more: its stream ends. */
export type Denial = {
  readonly kind: 'deny';
  readonly code: Extract<ErrorCode, 'identity_none' | 'identity_banned'>;
  readonly message: string;
};

/** A certificate in a response. */
export type Delivered = { readonly spiffeId: string; readonly content: SecretContent };

/**
 * The certificates of a caller, all of them in each response. None when its default identity is banned: the first of a
 * response is the default, and a ban would turn one workload into another.
 * @param before the state that was answered last; undefined at first
 */
export function answerX509Svid(
  before: WorkloadCredentials | undefined,
  now: WorkloadCredentials,
): Answer<X509SVIDResponse> {
  const denial = denyDefault(now.svids.length > 0, now);
  if (denial !== undefined) return denial;
  const bundle = now.bundles.get(now.trustDomain.name);
  // INVARIANT: no certificate leaves without the bundle to verify its peers with.
  if (bundle === undefined) return nothing;
  if (before !== undefined && sameItems(before.svids, now.svids) && sameMap(before.bundles, now.bundles))
    return nothing;
  const own = concat(bundle.x509Authorities);
  const hint = uniqueHints();
  return {
    kind: 'send',
    response: {
      svids: now.svids.map((svid) => ({
        spiffeId: svid.id.text,
        x509Svid: concat(svid.certificates),
        x509SvidKey: asBuffer(svid.privateKey),
        bundle: own,
        hint: hint(svid.hint),
      })),
      crl: [],
      federatedBundles: x509Map([...now.bundles.values()].filter((one) => one !== bundle)),
    },
    delivers: now.svids.map((svid) => ({ spiffeId: svid.id.text, content: contentOf(svid, bundle) })),
  };
}

/** The X.509 bundles of a caller with any identity, our own among them. */
export function answerX509Bundles(
  before: EntitledBundles | undefined,
  now: EntitledBundles,
): Answer<X509BundlesResponse> {
  const denial = denyAll(now.entitlement);
  if (denial !== undefined) return denial;
  if (before !== undefined && sameMap(before.bundles, now.bundles)) return nothing;
  const bundles = x509Map([...now.bundles.values()]);
  return { kind: 'send', response: { crl: [], bundles }, delivers: [] };
}

/** The JWT bundles of a caller with any identity, our own among them. @param write makes a JWKS document */
export function answerJwtBundles(
  write: (bundle: JwtBundle) => string,
): (before: EntitledBundles | undefined, now: EntitledBundles) => Answer<JWTBundlesResponse> {
  return (before, now) => {
    const denial = denyAll(now.entitlement);
    if (denial !== undefined) return denial;
    if (before !== undefined && sameMap(before.jwtBundles, now.jwtBundles)) return nothing;
    const bundles = Object.fromEntries(
      [...now.jwtBundles.values()].map((bundle) => [bundle.trustDomain.id, Buffer.from(write(bundle))]),
    );
    return { kind: 'send', response: { bundles }, delivers: [] };
  };
}

/** Why a caller that names no identity may not act as its default one; undefined when it may. */
export function denyDefault(
  hasIdentity: boolean,
  { banned, isDefaultBanned }: Pick<Entitlement, 'banned' | 'isDefaultBanned'>,
): Denial | undefined {
  if (isDefaultBanned || (!hasIdentity && banned.length > 0)) return isBanned;
  return hasIdentity ? undefined : hasNone;
}

/** Whether a caller may still have every one of these certificates, and its first as the default. */
export function holdsAll(
  svids: readonly X509Svid[],
  { entries, isDefaultBanned }: Pick<Entitlement, 'entries' | 'isDefaultBanned'>,
): boolean {
  return (
    !isDefaultBanned &&
    svids.every(({ id, entryId }) =>
      entries.some((entry) => entry.id === entryId && entry.spiffeId.equals(id)),
    )
  );
}

/** Why a caller may have nothing at all; undefined when it has some identity. */
export function denyAll({ entries, banned }: Entitlement): Denial | undefined {
  if (entries.length > 0) return undefined;
  return banned.length > 0 ? isBanned : hasNone;
}

/**
 * Hints as they may stand in one response: a later one that repeats an earlier one is left out, for clients drop what
 * has the hint of another.
 */
export function uniqueHints(): (hint: string) => string {
  const seen = new Set<string>();
  return (hint) => {
    if (seen.has(hint)) return '';
    seen.add(hint);
    return hint;
  };
}

function contentOf(svid: X509Svid, bundle: TrustBundle): SecretContent {
  return {
    kind: 'svid',
    spiffeId: svid.id.text,
    serial: svid.serial,
    issuerKeyId: svid.issuerKeyId,
    notAfter: svid.notAfter,
    bundleSequence: bundle.sequence,
  };
}

function x509Map(bundles: readonly TrustBundle[]): Record<string, Buffer> {
  return Object.fromEntries(
    bundles.map(({ trustDomain, x509Authorities }) => [trustDomain.id, concat(x509Authorities)]),
  );
}

function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

function sameMap<T>(a: ReadonlyMap<string, T>, b: ReadonlyMap<string, T>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}

function concat(parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(parts);
}

const nothing = { kind: 'nothing' } as const;
const hasNone: Denial = {
  kind: 'deny',
  code: 'identity_none',
  message: 'no registration entry matches the caller',
};
const isBanned: Denial = { kind: 'deny', code: 'identity_banned', message: 'the identity is banned' };
