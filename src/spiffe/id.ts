import { type ErrorCode, MeshError, quote } from '../errors.ts';

const scheme = 'spiffe://';
/** The longest SPIFFE ID that must be supported, and the longest we make (SPIFFE-ID section 2.3). */
export const maxIdBytes = 2_048;
/** SPIFFE-ID section 2.1: the trust domain is at most 255 bytes. */
export const maxTrustDomainBytes = 255;

/**
 * A trust domain, such as `example.org`. Only {@link TrustDomain.parse} makes one, so whoever holds it holds a valid
 * name. Names that look like IP addresses or are no DNS names are ordinary names.
 * @see SPIFFE-ID section 2.1
 */
export class TrustDomain {
  readonly name: string;
  private constructor(name: string) {
    this.name = name;
  }

  /**
   * Parses `example.org` (no scheme, no path).
   * @throws MeshError `spiffe_id_trust_domain_missing`, `spiffe_id_trust_domain_char`, `spiffe_id_trust_domain_too_long`
   */
  static parse(text: string): TrustDomain {
    checkTrustDomain(text, text);
    return new TrustDomain(text);
  }

  /** The trust domain as an ID: `spiffe://example.org`. */
  get id(): string {
    return scheme + this.name;
  }

  equals(other: TrustDomain): boolean {
    return this.name === other.name;
  }

  toString(): string {
    return this.name;
  }
}

/**
 * Whether a trust domain would be taken for an IP address by those who read it as the host of a URI: its last label is
 * a number.
 * @see RFC 3986 section 3.2.2
 */
export function isIpLike({ name }: TrustDomain): boolean {
  return /(^|\.)[0-9]+$/.test(name);
}

/**
 * A SPIFFE ID, such as `spiffe://example.org/ns/shop/sa/web`, parsed byte by byte: nothing is normalised, decoded or
 * trimmed, so two IDs are equal exactly when their text is.
 * @see SPIFFE-ID sections 2.1 to 2.4
 */
export class SpiffeId {
  readonly trustDomain: TrustDomain;
  /** Empty for a trust domain's own ID, else `/segment/segment`. */
  readonly path: string;
  readonly text: string;
  #principal: string | undefined;
  private constructor(trustDomain: TrustDomain, path: string) {
    this.trustDomain = trustDomain;
    this.path = path;
    this.text = trustDomain.id + path;
  }

  /**
   * Parses an ID of at most 2,048 bytes, with or without a path.
   * @throws MeshError one of the `spiffe_id_*` codes
   */
  static parse(text: string): SpiffeId {
    if (text.length === 0) refuse('spiffe_id_empty', text, 'is empty');
    if (text.length > maxIdBytes) refuse('spiffe_id_too_long', text, `is longer than ${maxIdBytes} bytes`);
    if (!text.startsWith(scheme)) refuse('spiffe_id_scheme', text, `does not start with ${scheme}`);
    const slash = text.indexOf('/', scheme.length);
    const name = slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash);
    checkTrustDomain(name, text);
    const path = slash === -1 ? '' : text.slice(slash);
    checkPath(path, text);
    return new SpiffeId(TrustDomain.parse(name), path);
  }

  /**
   * Parses the ID of a workload: one with a path.
   * @throws MeshError one of the `spiffe_id_*` codes, `spiffe_id_path_missing` among them
   */
  static parseWorkload(text: string): SpiffeId {
    const id = SpiffeId.parse(text);
    if (id.path === '') refuse('spiffe_id_path_missing', text, 'names a trust domain, not a workload');
    return id;
  }

  /** The ID without `spiffe://`, as policies name it. Kept: every call of a workload asks for it. */
  get principal(): string {
    return (this.#principal ??= this.trustDomain.name + this.path);
  }

  memberOf(trustDomain: TrustDomain): boolean {
    return this.trustDomain.equals(trustDomain);
  }

  equals(other: SpiffeId): boolean {
    return this.text === other.text;
  }

  toString(): string {
    return this.text;
  }
}

/**
 * The namespace and service account of an ID of Istio's shape, `spiffe://<td>/ns/<namespace>/sa/<service account>`, or
 * undefined when the ID has any other shape.
 */
export function kubernetesNames(id: SpiffeId): { namespace: string; serviceAccount: string } | undefined {
  const [empty, ns, namespace, sa, serviceAccount, more] = id.path.split('/');
  if (empty !== '' || ns !== 'ns' || sa !== 'sa' || more !== undefined) return undefined;
  if (namespace === undefined || serviceAccount === undefined) return undefined;
  return { namespace, serviceAccount };
}

function checkTrustDomain(name: string, whole: string): void {
  if (name.length === 0) refuse('spiffe_id_trust_domain_missing', whole, 'has no trust domain');
  for (let i = 0; i < name.length; i++) {
    if (!isTrustDomainChar(name.charCodeAt(i))) {
      refuse(
        'spiffe_id_trust_domain_char',
        whole,
        'has a trust domain with other characters than a-z 0-9 . - _',
      );
    }
  }
  if (name.length > maxTrustDomainBytes) {
    refuse(
      'spiffe_id_trust_domain_too_long',
      whole,
      `has a trust domain of more than ${maxTrustDomainBytes} bytes`,
    );
  }
}

function checkPath(path: string, whole: string): void {
  if (path === '') return;
  let start = 1;
  for (let i = 1; i <= path.length; i++) {
    if (i < path.length && path.charCodeAt(i) !== slashCode) {
      if (!isPathChar(path.charCodeAt(i))) {
        refuse('spiffe_id_path_char', whole, 'has a path with other characters than a-z A-Z 0-9 . - _');
      }
      continue;
    }
    const segment = path.slice(start, i);
    if (segment === '' && i === path.length) refuse('spiffe_id_trailing_slash', whole, 'ends with a slash');
    if (segment === '') refuse('spiffe_id_segment_empty', whole, 'has an empty path segment');
    if (segment === '.' || segment === '..') refuse('spiffe_id_segment_dot', whole, 'has a dot path segment');
    start = i + 1;
  }
}

function refuse(code: ErrorCode, whole: string, why: string): never {
  throw new MeshError(code, `SPIFFE ID ${quote(whole)} ${why}`, {
    fix: 'write it as spiffe://<trust domain>/<segment>/<segment>, for example spiffe://example.org/ns/shop/sa/web',
  });
}

const slashCode = 0x2f;

function isTrustDomainChar(c: number): boolean {
  return isLower(c) || isDigit(c) || isPunctuation(c);
}

function isPathChar(c: number): boolean {
  return isLower(c) || (c >= 0x41 && c <= 0x5a) || isDigit(c) || isPunctuation(c);
}

function isLower(c: number): boolean {
  return c >= 0x61 && c <= 0x7a;
}

function isDigit(c: number): boolean {
  return c >= 0x30 && c <= 0x39;
}

function isPunctuation(c: number): boolean {
  return c === 0x2d || c === 0x2e || c === 0x5f;
}
