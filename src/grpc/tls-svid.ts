import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { BanList } from '../identity/ban-list.ts';
import type { RegistrationEntry } from '../identity/entry.ts';
import { reservedPath } from '../identity/entry-parse.ts';
import type { PresentedCertificate } from '../identity/evidence.ts';
import type { Registry } from '../identity/registry.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { type CertificateFault, createCertificateJudge, type Shown } from './tls-certificate.ts';

/** Why somebody is not served; for the record, and for whoever has shown the certificate. */
export type SvidRefusal = {
  readonly code: ErrorCode;
  readonly refused: string;
  /** What was shown, once it has proven to be of our own CA. */
  readonly presented?: PresentedCertificate;
};

/** A live certificate of a workload of ours. */
export type CheckPresented = (shown: Shown) => PresentedCertificate | SvidRefusal;

export type CheckPresentedParts = {
  readonly trustDomain: TrustDomain;
  readonly bundle: () => TrustBundle;
  readonly bans: () => BanList;
  readonly clock: Clock;
};

/**
 * Judges whether what was shown is a live X509-SVID of a workload of the trust domain: neither of a node, nor of the
 * authority itself, and neither identity, serial nor key banned.
 */
export function createCheckPresented({
  trustDomain,
  bundle,
  bans,
  clock,
}: CheckPresentedParts): CheckPresented {
  const judge = createCertificateJudge({ bundle, clock });
  return (shown) => {
    const leaf = judge(shown);
    if (typeof leaf === 'string') return faults[leaf];
    const { id, serial, spkiSha256 } = leaf;
    const presented = { id, serial, spkiSha256, certificates: shown.certificates };
    if (!id.memberOf(trustDomain)) return { ...faults.untrusted, presented };
    // INVARIANT: what is kept for Countersign itself is never given out here, whatever an entry says.
    if (id.path.startsWith(reservedPath)) {
      return {
        code: 'certificate_unusable',
        refused: 'the certificate is not that of a workload',
        presented,
      };
    }
    if (bans().find({ id, serial, spkiSha256 }, clock.now()) !== undefined) return { ...banned, presented };
    return presented;
  };
}

/** Somebody who may be given the next certificate of the identity they have shown. */
export type RenewingPeer = { readonly presented: PresentedCertificate; readonly entry: RegistrationEntry };
export type CheckRenewing = (shown: Shown) => RenewingPeer | SvidRefusal;

/**
 * Judges whether what was shown is enough to be given the next certificate of that identity.
 * @param lineage certificates that led to the one of this serial: a ban of any of them counts for it as well
 */
export function createCheckRenewing(
  parts: CheckPresentedParts & {
    readonly registry: () => Registry;
    readonly lineage: (serial: string) => Iterable<Pick<PresentedCertificate, 'serial' | 'spkiSha256'>>;
  },
): CheckRenewing {
  const check = createCheckPresented(parts);
  // What neither it nor any before it was banned by; a line may be long, and is looked at often.
  const clean = new WeakMap<object, BanList>();
  return (shown) => {
    const presented = check(shown);
    if ('refused' in presented) return presented;
    const now = parts.clock.now();
    const bans = parts.bans();
    if (bans.size > 0) {
      const seen: object[] = [];
      for (const ancestor of parts.lineage(presented.serial)) {
        if (clean.get(ancestor) === bans) break;
        const { serial, spkiSha256 } = ancestor;
        if (bans.find({ serial, spkiSha256 }, now) !== undefined) return { ...banned, presented };
        seen.push(ancestor);
      }
      for (const ancestor of seen) clean.set(ancestor, bans);
    }
    const entry = parts.registry().renewable(presented.id, now);
    if (entry === undefined) {
      const refused = 'no entry lets a certificate of this identity be renewed here';
      return { code: 'identity_none', refused, presented };
    }
    return { presented, entry };
  };
}

const banned = { code: 'identity_banned', refused: 'the identity is banned' } as const;
const faults: Record<CertificateFault, SvidRefusal> = {
  missing: { code: 'certificate_missing', refused: 'the client shows no certificate' },
  unreadable: { code: 'certificate_unusable', refused: 'the certificate is not that of a workload' },
  untrusted: { code: 'certificate_untrusted', refused: 'the certificate is not one of ours' },
  expired: { code: 'certificate_expired', refused: 'the certificate has expired' },
};
