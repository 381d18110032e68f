import { maxRevoked, type RevokedCertificate, type RevocationReason } from '../ca/crl.ts';
import type { SeenCertificate } from '../audit/unknown-certificates.ts';
import { type Ban, isInForce } from './ban.ts';

/** A certificate of ours that a ban may concern. */
export type NamedCertificate = {
  readonly serial: string;
  readonly spiffeId: string;
  /** SHA-256 of its SubjectPublicKeyInfo, lower-case hex; empty when an earlier version issued it. */
  readonly spkiSha256: string;
  /** Empty when an earlier version issued it. */
  readonly issuerKeyId: string;
  readonly notAfter: Date;
};

/** What is known of the certificates that bans name. */
export type NamedCertificates = {
  readonly certificates: readonly NamedCertificate[];
  /** Serials that we never gave out: they were signed with our key by somebody else, or not at all. */
  readonly unknownSerials: readonly string[];
  /** Of certificates that were asked about by their contents: those that are not what the issuance of their serial says. */
  readonly copied?: readonly SeenCertificate[];
};

/** What the CAs have to revoke because of the bans in force. */
export type Revocations = {
  /** By the key ID of the CA. Those of nobody known stand under every CA, the empty key ID. */
  readonly byIssuer: ReadonlyMap<string, readonly RevokedCertificate[]>;
  /** When a ban or a certificate in it ends; null when none does. */
  readonly nextEnd: Date | null;
  /** Entries that no list has room for: {@link maxRevoked} each. */
  readonly omitted: number;
};

/** What the bans in force name, in the words of the question that finds their certificates. */
export function namedBy(
  bans: Iterable<Ban>,
  now: Date,
): { readonly spiffeIds: string[]; readonly serials: string[]; readonly keys: string[] } {
  const names = { spiffeIds: [] as string[], serials: [] as string[], keys: [] as string[] };
  const listOf = { 'spiffe-id': names.spiffeIds, serial: names.serials, key: names.keys };
  for (const ban of bans) if (isInForce(ban, now)) listOf[ban.kind].push(ban.value);
  return names;
}

/**
 * The entries that the bans in force put on the lists of the CAs: of every certificate that one of them concerns and
 * that has not expired {@link expiredKeptMs} ago. When several concern one, a leaked key weighs most, then what is not only for a while.
 */
export function revocationsOf(bans: Iterable<Ban>, named: NamedCertificates, now: Date): Revocations {
  const inForce = [...bans].filter((ban) => isInForce(ban, now));
  const banOf = new Map(inForce.map((ban) => [`${ban.kind} ${ban.value}`, ban]));
  const byIssuer = new Map<string, RevokedCertificate[]>();
  let [nextEndMs, omitted] = [Number.POSITIVE_INFINITY, 0];
  const revoke = (serial: string, issuerKeyId: string, overMs: number, keys: readonly string[]): void => {
    const because = keys.flatMap((key) => banOf.get(key) ?? []);
    if (because.length === 0) return;
    nextEndMs = Math.min(nextEndMs, overMs);
    const entries = byIssuer.get(issuerKeyId) ?? [];
    byIssuer.set(issuerKeyId, entries);
    if (entries.length >= maxRevoked) {
      omitted += 1;
      return;
    }
    const reasons = new Set(because.map(reasonOf));
    entries.push({
      serial,
      revokedAt: new Date(Math.min(...because.map(({ createdAt }) => createdAt.getTime()))),
      reason: weightiest.find((reason) => reasons.has(reason)) ?? 'privilege_withdrawn',
    });
    for (const { until } of because) nextEndMs = Math.min(nextEndMs, until?.getTime() ?? nextEndMs);
  };
  // Those that stay valid longest first, so that what is left out does least harm.
  const lasting = [...named.certificates].sort((a, b) => b.notAfter.getTime() - a.notAfter.getTime());
  for (const serial of named.unknownSerials) {
    revoke(serial, '', Number.POSITIVE_INFINITY, [`serial ${serial}`]);
  }
  for (const { serial, spiffeId, spkiSha256, issuerKeyId, notAfter } of lasting) {
    const overMs = notAfter.getTime() + expiredKeptMs;
    if (overMs <= now.getTime()) continue;
    revoke(serial, issuerKeyId, overMs, [`key ${spkiSha256}`, `spiffe-id ${spiffeId}`, `serial ${serial}`]);
  }
  return { byIssuer, nextEnd: Number.isFinite(nextEndMs) ? new Date(nextEndMs) : null, omitted };
}

/** How long a certificate stays on the list after it has expired: for those whose clocks are behind, in ms. */
export const expiredKeptMs = 300_000;

// A ban with an end is the one thing X.509 has for a revocation that is taken back.
function reasonOf({ kind, until }: Ban): RevocationReason {
  if (until !== null) return 'certificate_hold';
  return kind === 'key' ? 'key_compromise' : 'privilege_withdrawn';
}

const weightiest: readonly RevocationReason[] = ['key_compromise', 'privilege_withdrawn', 'certificate_hold'];
