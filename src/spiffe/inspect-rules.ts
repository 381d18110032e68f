/**
 * Every rule that an inspection can find broken: where it is written, and what it says. The names are stable: they are
 * printed, stored and searched, so none is ever renamed. A number in a name is the section.
 */
export const inspectionRules = {
  // SPIFFE-ID
  'spiffe-id-2-scheme': ['SPIFFE-ID section 2', 'an ID begins with spiffe://, in lower case'],
  'spiffe-id-2-no-query': ['SPIFFE-ID section 2', 'an ID has no query'],
  'spiffe-id-2-no-fragment': ['SPIFFE-ID section 2', 'an ID has no fragment'],
  'spiffe-id-2-trust-domain-present': ['SPIFFE-ID section 2', 'an ID names a trust domain'],
  'spiffe-id-2.1-no-userinfo': ['SPIFFE-ID section 2.1', 'the authority has no user'],
  'spiffe-id-2.1-no-port': ['SPIFFE-ID section 2.1', 'the authority has no port and no colon'],
  'spiffe-id-2.1-trust-domain-char': ['SPIFFE-ID section 2.1', 'a trust domain is of a-z 0-9 . - _'],
  'spiffe-id-2.2-path-char': ['SPIFFE-ID section 2.2', 'a path segment is of a-z A-Z 0-9 . - _'],
  'spiffe-id-2.2-no-empty-segment': ['SPIFFE-ID section 2.2', 'a path has no empty segment'],
  'spiffe-id-2.2-no-dot-segment': ['SPIFFE-ID section 2.2', 'a path has no segment . or ..'],
  'spiffe-id-2.2-no-trailing-slash': ['SPIFFE-ID section 2.2', 'an ID does not end with a slash'],
  'spiffe-id-2.3-length': ['SPIFFE-ID section 2.3', 'an ID has at most 2,048 bytes'],
  'spiffe-id-2.3-trust-domain-length': ['SPIFFE-ID section 2.3', 'a trust domain has at most 255 bytes'],
  // X509-SVID
  'x509-svid-2-one-uri-san': ['X509-SVID section 2', 'an SVID has exactly one URI name'],
  'x509-svid-3.1-path': ['X509-SVID section 3.1', 'the SPIFFE ID of a leaf has a path'],
  'x509-svid-3.1-san-critical': ['X509-SVID section 3.1', 'names are critical when the subject is empty'],
  'x509-svid-3.2-no-path': ['X509-SVID section 3.2', 'the SPIFFE ID of a signing certificate has no path'],
  'x509-svid-4.1-leaf-not-ca': ['X509-SVID section 4.1', 'a leaf is not a CA'],
  'x509-svid-4.1-ca': ['X509-SVID section 4.1', 'a signing certificate is a CA'],
  'x509-svid-4.2-name-constraints': ['X509-SVID section 4.2', 'names lie within the name constraints above'],
  'x509-svid-4.3-key-usage': ['X509-SVID section 4.3', 'key usage is present'],
  'x509-svid-4.3-key-usage-critical': ['X509-SVID section 4.3', 'key usage is critical'],
  'x509-svid-4.3-digital-signature': ['X509-SVID section 4.3', 'a leaf has digitalSignature'],
  'x509-svid-4.3-leaf-no-key-cert-sign': ['X509-SVID section 4.3', 'a leaf has no keyCertSign'],
  'x509-svid-4.3-leaf-no-crl-sign': ['X509-SVID section 4.3', 'a leaf has no cRLSign'],
  'x509-svid-4.3-key-cert-sign': ['X509-SVID section 4.3', 'a signing certificate has keyCertSign'],
  'x509-svid-4.4-server-auth': ['X509-SVID section 4.4', 'key purposes of a leaf include serverAuth'],
  'x509-svid-4.4-client-auth': ['X509-SVID section 4.4', 'key purposes of a leaf include clientAuth'],
  'x509-svid-5.1-trust': ['X509-SVID section 5.1', 'an authority of the trust bundle stands at the end'],
  // X.509
  'rfc5280-4.1.2.6-ca-subject': ['RFC 5280 section 4.1.2.6', 'a CA has a subject'],
  'rfc5280-4.2-extension': ['RFC 5280 section 4.2', 'an extension has the form that its definition gives it'],
  'rfc5280-4.2-unknown-critical': ['RFC 5280 section 4.2', 'no critical extension is unknown'],
  'rfc5280-4.2.1.9-ca-critical': ['RFC 5280 section 4.2.1.9', 'basic constraints of a CA are critical'],
  'rfc5280-6.1.3-issuer': ['RFC 5280 section 6.1.3', 'each certificate names the next one as its issuer'],
  'rfc5280-6.1.3-signature': ['RFC 5280 section 6.1.3', 'each certificate is signed by its issuer'],
  'rfc5280-6.1.3-validity': ['RFC 5280 section 6.1.3', 'each certificate is valid at the time asked for'],
  'rfc5280-6.1.4-path-length': ['RFC 5280 section 6.1.4', 'no more CAs stand below one than it permits'],
  // requests for certificates
  'rfc2986-4.1-version': ['RFC 2986 section 4.1', 'a request is of version 1, written 0'],
  'rfc2986-4.2-proof-of-possession': ['RFC 2986 section 4.2', 'a request is signed with its own key'],
  'csr-key': [
    'Countersign, key policy',
    'a key is ECDSA P-256 or P-384, or RSA 2048, 3072 or 4096, e = 65537',
  ],
  'csr-intake': ['Countersign, CSR intake', 'a request is strict DER and carries nothing unread'],
  // SPIFFE bundles
  'spiffe-bundle-3-one-trust-domain': [
    'SPIFFE Trust Domain and Bundle section 3',
    'a bundle is of one trust domain',
  ],
  'spiffe-bundle-3-no-duplicate': ['SPIFFE Trust Domain and Bundle section 3', 'an authority stands once'],
  'spiffe-bundle-4.1-trust-domains': [
    'SPIFFE Trust Domain and Bundle section 4.1',
    'a bundle map holds bundles by trust domain name',
  ],
  'spiffe-bundle-4.1.1-sequence': [
    'SPIFFE Trust Domain and Bundle section 4.1.1',
    'spiffe_sequence is a whole number',
  ],
  'spiffe-bundle-4.1.2-refresh-hint': [
    'SPIFFE Trust Domain and Bundle section 4.1.2',
    'spiffe_refresh_hint is a whole number of seconds',
  ],
  'spiffe-bundle-4.1.3-keys': ['SPIFFE Trust Domain and Bundle section 4.1.3', 'keys is an array of keys'],
  'spiffe-bundle-4.2.1-kty': ['SPIFFE Trust Domain and Bundle section 4.2.1', 'a key has a kty'],
  'spiffe-bundle-4.2.2-use': ['SPIFFE Trust Domain and Bundle section 4.2.2', 'a key has a use'],
  'x509-svid-6.1-no-kid': ['X509-SVID section 6.1', 'an x509-svid key has no kid'],
  'x509-svid-6.1-one-x5c': ['X509-SVID section 6.1', 'x5c of an x509-svid key is exactly one certificate'],
  'jwt-svid-6.1-kid': ['JWT-SVID section 6.1', 'a jwt-svid key has a kid'],
  'rfc7517-4-unique-members': ['RFC 7517 section 4', 'no member stands twice'],
  'rfc7517-4-public-key': ['RFC 7517 section 4', 'the members of a key make a public key'],
  'rfc7517-4.5-distinct-kid': ['RFC 7517 section 4.5', 'keys have different kids'],
  'rfc7517-4.7-x5c-key': ['RFC 7517 section 4.7', 'the key in x5c is the one that the members give'],
  'rfc7517-9.2-no-private-key': ['RFC 7517 section 9.2', 'what is published holds no secret or private key'],
  // JWT-SVID
  'rfc7515-4-unique-members': ['RFC 7515 section 4', 'no header member stands twice'],
  'rfc7519-4-unique-claims': ['RFC 7519 section 4', 'no claim stands twice'],
  'rfc7519-4.1-numeric-date': ['RFC 7519 section 4.1', 'nbf and iat, if present, are numbers of seconds'],
  'jwt-svid-2-header': ['JWT-SVID section 2', 'the header has no members but alg, kid and typ'],
  'jwt-svid-2.1-alg': ['JWT-SVID section 2.1', 'alg is RS, ES or PS with 256, 384 or 512'],
  'jwt-svid-2.2-kid': ['JWT-SVID section 2.2', 'kid, if present, is text'],
  'jwt-svid-2.3-typ': ['JWT-SVID section 2.3', 'typ, if present, is JWT or JOSE'],
  'jwt-svid-3.1-sub': ['JWT-SVID section 3.1', 'sub is the SPIFFE ID of a workload'],
  'jwt-svid-3.2-aud': ['JWT-SVID section 3.2', 'aud is present with at least one value'],
  'jwt-svid-3.3-exp': ['JWT-SVID section 3.3', 'exp is present, a number of seconds'],
  'jwt-svid-4-signature': ['JWT-SVID section 4', 'the signature verifies with a key of the bundle'],
  'jwt-svid-4-time': ['JWT-SVID section 4', 'the token is valid at the time asked for'],
} as const satisfies Record<string, readonly [section: string, says: string]>;

/** The stable name of a rule, such as `x509-svid-2-one-uri-san`. */
export type InspectionRule = keyof typeof inspectionRules;

/** One broken rule. */
export type Finding = {
  readonly rule: InspectionRule;
  /** Where the rule is written. */
  readonly section: string;
  /** Which part breaks it, such as `certificate 2` or `keys[0]`; empty for the whole input. */
  readonly part: string;
  /** What is wrong: one line, input quoted. */
  readonly message: string;
};

/** What an inspection found: facts to show, and every rule broken. */
export type Inspection<Facts> = { readonly facts: Facts; readonly broken: readonly Finding[] };

/** Collects findings, each rule once for each part; at most 1,000, so that no input makes a report without end. */
export type Findings = {
  /** Notes a broken rule. */
  readonly add: (rule: InspectionRule, message: string) => void;
  /** The same collection, for a part of the input. */
  readonly of: (part: string) => Findings;
  readonly list: () => readonly Finding[];
};

export function collectFindings(): Findings {
  const found = new Map<string, Finding>();
  const collector = (part: string): Findings => ({
    add: (rule, message) => {
      const key = `${part}\n${rule}`;
      if (found.has(key) || found.size >= maxFindings) return;
      found.set(key, { rule, section: inspectionRules[rule][0], part, message });
    },
    of: (inner) => collector(part === '' ? inner : `${part}, ${inner}`),
    list: () => [...found.values()],
  });
  return collector('');
}

const maxFindings = 1_000;
