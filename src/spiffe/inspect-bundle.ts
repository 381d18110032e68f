import { MeshError, publicError, quote } from '../errors.ts';
import { maxAuthorities } from './bundle.ts';
import { TrustDomain } from './id.ts';
import {
  type CertificateFacts,
  checkAuthority,
  type ReadCertificate,
  readForInspection,
} from './inspect-certificate.ts';
import { inspectJwk, type JwtKey } from './inspect-jwk.ts';
import { membersOf, readJsonObject } from './inspect-json.ts';
import { collectFindings, type Findings, type Inspection } from './inspect-rules.ts';

/** What the bundle of one trust domain says. */
export type BundleFacts = {
  /** Of the bundle map, or of the authorities; null when nothing names it. */
  readonly trustDomain: string | null;
  readonly sequence: number | null;
  readonly refreshHintSeconds: number | null;
  readonly authorities: readonly CertificateFacts[];
  readonly jwtKeys: readonly { readonly kid: string; readonly key: string }[];
  /** How many keys clients ignore, because of their use. */
  readonly ignoredKeys: number;
};

/** What a bundle file says: the bundles of one or of several trust domains. */
export type BundleFileFacts = {
  readonly format: 'certificates' | 'jwks' | 'map';
  readonly bundles: readonly BundleFacts[];
};

/** The parts of one bundle that verify others. */
export type UsableBundle = {
  readonly trustDomain: string | null;
  /** DER. */
  readonly authorities: readonly Uint8Array[];
  readonly jwtKeys: readonly JwtKey[];
};

/** An inspected bundle, and what can be used of it. */
export type InspectedBundle = Inspection<BundleFileFacts> & { readonly usable: readonly UsableBundle[] };

/**
 * Inspects CA certificates as the bundle of one trust domain.
 * @param certificates DER, 1 to 64
 * @throws MeshError `der_invalid` when one cannot be read, `input_too_large` for more
 */
export function inspectCertificateBundle(certificates: readonly Uint8Array[]): InspectedBundle {
  if (certificates.length > maxAuthorities) tooMany();
  const findings = collectFindings();
  const authorities = certificates.map((der, i) => {
    const own = findings.of(`authority ${i + 1}`);
    const read = readForInspection(der, own);
    checkAuthority(read, own);
    return read;
  });
  const bundle = finish({ authorities, trustDomain: null, jwtKeys: [] }, findings);
  return {
    facts: { format: 'certificates', bundles: [bundle.facts] },
    broken: findings.list(),
    usable: [bundle.usable],
  };
}

/**
 * Inspects a SPIFFE bundle (a JWK set), or a map of them (`trust_domains`).
 * @param text at most 1 MiB
 * @throws MeshError `input_unreadable` when it is no JSON object, `input_too_large` for more than 256 keys or bundles
 * @see SPIFFE Trust Domain and Bundle, section 4
 */
export function inspectJsonBundle(text: string): InspectedBundle {
  const findings = collectFindings();
  const { members, duplicates } = readJsonObject(text, 'the bundle');
  if (duplicates.length > 0) {
    findings.add('rfc7517-4-unique-members', `members stand twice: ${duplicates.join(', ')}`);
  }
  const isMap = members.has('trust_domains');
  const bundles = isMap ? readMap(members, findings) : [readSet(members, null, findings)];
  return {
    facts: { format: isMap ? 'map' : 'jwks', bundles: bundles.map(({ facts }) => facts) },
    broken: findings.list(),
    usable: bundles.map(({ usable }) => usable),
  };
}

type OneBundle = { readonly facts: BundleFacts; readonly usable: UsableBundle };

function readMap(members: ReadonlyMap<string, unknown>, findings: Findings): readonly OneBundle[] {
  const map = membersOf(members.get('trust_domains'));
  if (map === undefined) {
    findings.add('spiffe-bundle-4.1-trust-domains', 'trust_domains is not an object');
    return [];
  }
  if (map.size > maxKeys) tooMany();
  return [...map].flatMap(([name, value]) => {
    const own = findings.of(`trust domain ${quote(name)}`);
    try {
      TrustDomain.parse(name);
    } catch (error) {
      own.add('spiffe-bundle-4.1-trust-domains', publicError(error).message);
    }
    const set = membersOf(value);
    if (set !== undefined) return [readSet(set, name, own)];
    own.add('spiffe-bundle-4.1-trust-domains', 'the bundle is not an object');
    return [];
  });
}

function readSet(
  members: ReadonlyMap<string, unknown>,
  trustDomain: string | null,
  findings: Findings,
): OneBundle {
  const sequence = wholeNumber(members.get('spiffe_sequence'));
  if (members.has('spiffe_sequence') && sequence === null) {
    findings.add('spiffe-bundle-4.1.1-sequence', 'spiffe_sequence is not a whole number');
  }
  const refreshHintSeconds = wholeNumber(members.get('spiffe_refresh_hint'));
  if (members.has('spiffe_refresh_hint') && refreshHintSeconds === null) {
    findings.add('spiffe-bundle-4.1.2-refresh-hint', 'spiffe_refresh_hint is not a whole number');
  }
  const keys = members.get('keys');
  if (!Array.isArray(keys)) {
    findings.add(
      'spiffe-bundle-4.1.3-keys',
      members.has('keys') ? 'keys is not an array' : 'keys is missing',
    );
  }
  const list: readonly unknown[] = Array.isArray(keys) ? keys : [];
  if (list.length > maxKeys) tooMany();
  const authorities: ReadCertificate[] = [];
  const jwtKeys: JwtKey[] = [];
  const kids = new Set<string>();
  for (const [i, value] of list.entries()) {
    const own = findings.of(`keys[${i}]`);
    const { authority, jwtKey } = inspectJwk(value, own);
    if (authority !== undefined) authorities.push(authority);
    if (jwtKey === undefined) continue;
    if (kids.has(jwtKey.kid))
      own.add('rfc7517-4.5-distinct-kid', `the kid ${quote(jwtKey.kid)} stands twice`);
    kids.add(jwtKey.kid);
    jwtKeys.push(jwtKey);
  }
  const { facts, usable } = finish({ authorities, trustDomain, jwtKeys }, findings);
  const ignoredKeys = list.filter((value) => !knownUses.has(String(membersOf(value)?.get('use')))).length;
  return { facts: { ...facts, sequence, refreshHintSeconds, ignoredKeys }, usable };
}

/** What all authorities of one bundle have to do with each other. */
function finish(
  parts: {
    readonly authorities: readonly ReadCertificate[];
    readonly trustDomain: string | null;
    readonly jwtKeys: readonly JwtKey[];
  },
  findings: Findings,
): OneBundle {
  const { authorities, jwtKeys } = parts;
  const seen = new Set<string>();
  for (const { facts } of authorities) {
    if (seen.has(facts.sha256)) {
      findings.add('spiffe-bundle-3-no-duplicate', `the authority of serial ${facts.serial} stands twice`);
    }
    seen.add(facts.sha256);
  }
  const domains = [parts.trustDomain, ...authorities.map(({ trustDomain }) => trustDomain)];
  const distinct = [...new Set(domains.filter((name) => name !== null))];
  if (distinct.length > 1) {
    findings.add(
      'spiffe-bundle-3-one-trust-domain',
      `authorities of several trust domains: ${distinct.slice(0, maxShown).map(quote).join(', ')}`,
    );
  }
  const trustDomain = parts.trustDomain ?? distinct[0] ?? null;
  return {
    facts: {
      trustDomain,
      sequence: null,
      refreshHintSeconds: null,
      authorities: authorities.map(({ facts }) => facts),
      jwtKeys: jwtKeys.map(({ kid, kind }) => ({ kid, key: kind })),
      ignoredKeys: 0,
    },
    usable: { trustDomain, authorities: authorities.map(({ der }) => der), jwtKeys },
  };
}

function wholeNumber(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 ? value : null;
}

function tooMany(): never {
  throw new MeshError(
    'input_too_large',
    `the bundle has more than ${maxAuthorities} certificates, or ${maxKeys} keys`,
    {
      fix: 'remove what is no longer used: proxies read it all',
    },
  );
}

const maxKeys = 256;
const maxShown = 4;
const knownUses: ReadonlySet<string> = new Set(['x509-svid', 'jwt-svid']);
