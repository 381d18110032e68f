import type { BundleFacts } from '../spiffe/inspect-bundle.ts';
import type { CertificateFacts } from '../spiffe/inspect-certificate.ts';
import type { ChainFacts } from '../spiffe/inspect-chain.ts';
import type { JwtFacts } from '../spiffe/inspect-jwt.ts';
import type { Finding } from '../spiffe/inspect-rules.ts';
import type { InspectReport } from './inspect-kinds.ts';
import { formatPairs, printable } from './text.ts';

/** An inspection as people read it: the facts, then every broken rule. */
export function formatReport(report: InspectReport, now: Date): string {
  return `${formatFacts(report, now)}\n${formatBroken(report.broken)}`;
}

/** `2026-11-21T11:59:30Z to 2026-11-21T12:59:30Z, expires in 41 min`. */
export function formatValidity(notBefore: Date, notAfter: Date, now: Date): string {
  const state =
    now < notBefore
      ? `begins in ${formatSpan(notBefore.getTime() - now.getTime())}`
      : now > notAfter
        ? `expired ${formatSpan(now.getTime() - notAfter.getTime())} ago`
        : `expires in ${formatSpan(notAfter.getTime() - now.getTime())}`;
  return `${formatTime(notBefore)} to ${formatTime(notAfter)}, ${state}`;
}

/** A time to the second, in UTC. */
export function formatTime(time: Date): string {
  return time.toISOString().replace(/\.\d{3}Z$/, 'Z');
}

/** A span in the largest unit that says enough, rounded down: `41 min`. */
export function formatSpan(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  for (const [unit, size] of units) if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${seconds} s`;
}

type Pair = readonly [string, string];

function formatFacts(report: InspectReport, now: Date): string {
  switch (report.kind) {
    case 'id': {
      const { id, kind, trustDomain, path } = report.facts;
      return formatPairs(
        present([
          ['SPIFFE ID', id],
          ['kind', kind],
          ['trust domain', trustDomain],
          ['path', path === '' ? null : path],
        ]),
      );
    }
    case 'csr': {
      const { facts } = report;
      return formatPairs(
        present([
          ['key', facts.key],
          ['signature', facts.signature],
          ['subject', orNull(facts.subject)],
          ['SPIFFE ID', facts.spiffeId],
          ['DNS names', orNull(facts.dnsNames.join(', '))],
          ['key sha256', facts.spkiSha256],
          ['sha256', facts.sha256],
        ]),
      );
    }
    case 'svid':
      return formatChain(report.facts, now);
    case 'bundle':
      return report.facts.bundles.map((bundle) => formatBundle(bundle, now)).join('\n');
    case 'jwt':
      return formatJwt(report.facts, now);
    default:
      return report satisfies never;
  }
}

function formatChain({ certificates, trust }: ChainFacts, now: Date): string {
  const verdict: readonly Pair[] =
    trust === null
      ? [['trust', 'not verified: give --trust-bundle']]
      : [
          [
            'trust',
            trust.anchor === null
              ? 'no authority of the trust bundle issued it'
              : `ends at ${trust.anchor.subject}, serial ${trust.anchor.serial}`,
          ],
          ['judged at', formatTime(trust.at)],
        ];
  return certificates
    .map((facts, i) => {
      const pairs = formatPairs([...certificatePairs(facts, now), ...(i === 0 ? verdict : [])]);
      return i === 0 ? pairs : `certificate ${i + 1}\n${indent(pairs)}`;
    })
    .join('\n');
}

function certificatePairs(facts: CertificateFacts, now: Date): readonly Pair[] {
  const pathLength = facts.pathLength === null ? '' : `, path length ${facts.pathLength}`;
  return present([
    ['SPIFFE ID', facts.spiffeId ?? 'none'],
    ['serial', facts.serial],
    ['valid', formatValidity(facts.notBefore, facts.notAfter, now)],
    ['key', facts.key],
    ['usage', orNull([...facts.keyUsage, ...facts.keyPurposes].join(', '))],
    ['CA', facts.ca ? `yes${pathLength}` : null],
    ['subject', orNull(facts.subject)],
    ['issuer', orNull(facts.issuer)],
    ['key id', facts.subjectKeyId],
    ['issuer key id', facts.authorityKeyId],
    ['DNS names', orNull(facts.dnsNames.join(', '))],
    ['sha256', facts.sha256],
  ]);
}

function formatBundle(facts: BundleFacts, now: Date): string {
  const { trustDomain, sequence, refreshHintSeconds, authorities, jwtKeys, ignoredKeys } = facts;
  const head = formatPairs(
    present([
      ['trust domain', trustDomain ?? 'not named'],
      ['sequence', sequence === null ? null : `${sequence}`],
      ['refresh hint', refreshHintSeconds === null ? null : `${refreshHintSeconds} s`],
      ['authorities', `${authorities.length}`],
      ['JWT keys', `${jwtKeys.length}`],
      ['ignored keys', ignoredKeys === 0 ? null : `${ignoredKeys}, of a use that is not known`],
    ]),
  );
  const certificates = authorities.map(
    (authority, i) => `\nauthority ${i + 1}\n${indent(formatPairs(certificatePairs(authority, now)))}`,
  );
  const keys = jwtKeys.map(
    ({ kid, key }) => `\nJWT key ${printable(kid)}\n${indent(formatPairs([['key', key]]))}`,
  );
  return [head, ...certificates, ...keys].join('');
}

function formatJwt(facts: JwtFacts, now: Date): string {
  const { header, expiresAt } = facts;
  const expiry = (time: Date): string =>
    now >= time
      ? `${formatTime(time)}, expired ${formatSpan(now.getTime() - time.getTime())} ago`
      : `${formatTime(time)}, expires in ${formatSpan(time.getTime() - now.getTime())}`;
  return formatPairs(
    present([
      ['signature', signatures[facts.signature]],
      ['subject', facts.subject ?? 'none'],
      ['audience', orNull(facts.audience.join(', ')) ?? 'none'],
      ['expires', expiresAt === null ? 'never said' : expiry(expiresAt)],
      ['issued', facts.issuedAt === null ? null : formatTime(facts.issuedAt)],
      ['not before', facts.notBefore === null ? null : formatTime(facts.notBefore)],
      ['algorithm', header.alg],
      ['key id', header.kid],
      ['type', header.typ],
      ['other claims', orNull(facts.otherClaims.join(', '))],
    ]),
  );
}

function formatBroken(broken: readonly Finding[]): string {
  if (broken.length === 0) return 'no rule broken\n';
  const head = broken.length === 1 ? '1 rule broken' : `${broken.length} rules broken`;
  const lines = broken.map(({ rule, section, part, message }) => {
    const where = part === '' ? '' : `${part}: `;
    return `× ${rule}  (${section})\n    ${printable(where + message)}\n`;
  });
  return `${head}\n${lines.join('')}`;
}

function present(pairs: readonly (readonly [string, string | null])[]): readonly Pair[] {
  return pairs.filter((pair): pair is Pair => pair[1] !== null);
}

function orNull(text: string): string | null {
  return text === '' ? null : text;
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ');
}

const signatures: Readonly<Record<JwtFacts['signature'], string>> = {
  'not verified': 'NOT VERIFIED: what follows is what the token says of itself (give --bundle)',
  verified: 'verified with a key of the bundle',
  invalid: 'INVALID: believe nothing of what follows',
};
const units = [
  ['days', 86_400],
  ['h', 3_600],
  ['min', 60],
] as const;
