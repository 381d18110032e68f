import type { Clock } from '../clock.ts';
import { MeshError } from '../errors.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { checkX509SvidLeaf, type X509SvidLeaf } from '../spiffe/svid.ts';

/** What somebody has shown: DER, their own first, then what they sent along that issued it. */
export type Shown = { readonly certificates: readonly Uint8Array[] };

/** Why a certificate does not count: there is none; it is no leaf of ours to read; it does not chain to the bundle. */
export type CertificateFault = 'missing' | 'unreadable' | 'untrusted' | 'expired';

/** Judges what was shown as of now. It does not look at whose it is, or at bans. */
export type JudgeCertificate = (shown: Shown) => X509SvidLeaf | CertificateFault;

/**
 * A certificate counts while it chains to the bundle of this moment and all of its path is within its dates. Signatures
 * are the costly part: they are proven once for each bundle and each value that is judged, dates every time.
 */
export function createCertificateJudge(parts: {
  readonly bundle: () => TrustBundle;
  readonly clock: Clock;
}): JudgeCertificate {
  const judged = new WeakMap<Shown, Judged>();
  return (shown) => {
    const now = parts.clock.now();
    if (shown.certificates.length === 0) return 'missing';
    const bundle = parts.bundle();
    let known = judged.get(shown);
    if (known === undefined || known.bundle !== bundle) {
      known = { bundle, verdict: judge(shown, bundle, now) };
      judged.set(shown, known);
    }
    const { verdict } = known;
    if (typeof verdict === 'string') return verdict;
    return now < verdict.from || now > verdict.until ? 'expired' : verdict.leaf;
  };
}

type Verdict = { readonly leaf: X509SvidLeaf; readonly from: Date; readonly until: Date } | CertificateFault;
type Judged = { readonly bundle: TrustBundle; readonly verdict: Verdict };

function judge({ certificates }: Shown, bundle: TrustBundle, now: Date): Verdict {
  try {
    const [first] = certificates;
    const leaf = checkX509SvidLeaf(first ?? new Uint8Array(0));
    const { facts, broken } = inspectChain(certificates, { authorities: bundle.x509Authorities, at: now });
    if (broken.length > 0) {
      return facts.certificates.some(({ notAfter }) => notAfter < now) ? 'expired' : 'untrusted';
    }
    const path = [...facts.certificates, ...[facts.trust?.anchor ?? []].flat()];
    return {
      leaf,
      from: new Date(Math.max(...path.map(({ notBefore }) => notBefore.getTime()))),
      until: new Date(Math.min(...path.map(({ notAfter }) => notAfter.getTime()))),
    };
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return 'unreadable';
  }
}
