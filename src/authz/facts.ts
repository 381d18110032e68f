import { kubernetesNames, type TrustDomain } from '../spiffe/id.ts';
import { addressKey, canonicalAddress, parseAddress } from './cidr.ts';
import type { AuthzRequest } from './decision.ts';
import type { Attribute } from './document.ts';
import { trimSpaces } from './header-line.ts';

/** Who made a token, and for whom. */
export type TokenSubject = { readonly issuer: string; readonly subject: string };

/**
 * The attributes of a request that predicates read. Undefined means that the attribute is not known, or that such a
 * request has none by its nature; an empty list or null, that it is known to be missing.
 */
export class Facts {
  /** The caller's ID without `spiffe://`. */
  readonly principal: string | undefined;
  readonly host: string | undefined;
  /** Null when the authority named no port. */
  readonly hostPort: number | null;
  readonly port: number | undefined;
  readonly method: string | undefined;
  readonly path: string | undefined;
  readonly protocol: 'http' | 'tcp';
  /** When the call is judged. */
  readonly nowMs: number;
  readonly #request: AuthzRequest;
  readonly #trustDomain: TrustDomain;
  #names: ReturnType<typeof kubernetesNames> | null = null;
  /** Thousands of rules may ask for the same: what takes time is worked out once. */
  #known: Map<string, unknown> | undefined;

  constructor(request: AuthzRequest, trustDomain: TrustDomain, now: Date) {
    const http = request.protocol === 'http';
    this.#request = request;
    this.#trustDomain = trustDomain;
    this.protocol = request.protocol;
    this.nowMs = now.getTime();
    this.principal = request.source?.text.slice(schemeLength);
    this.host = http && request.host !== '' ? request.host : undefined;
    this.hostPort = request.hostPort;
    this.port = request.port === 0 ? undefined : request.port;
    this.method = http && request.method !== '' ? request.method : undefined;
    this.path = http && request.path !== '' ? request.path : undefined;
  }

  /**
   * The caller's namespace. Only an ID of our own trust domain and of the shape `/ns/<namespace>/sa/<account>` has one: a
   * foreign authority could sign any namespace's name.
   */
  get namespace(): string | undefined {
    return this.#kubernetes()?.namespace;
  }

  /** `namespace/account`, of those that have a namespace. */
  get serviceAccount(): string | undefined {
    const names = this.#kubernetes();
    return names === undefined ? undefined : `${names.namespace}/${names.serviceAccount}`;
  }

  get trustDomain(): string | undefined {
    return this.#request.source?.trustDomain.name;
  }

  /** Lower case, without trailing dot; empty when TLS named nothing. What is no DNS name cannot be told. */
  get sni(): string | undefined {
    return this.#once('sni', () => {
      const name = this.#request.context.sni?.toLowerCase();
      return name !== undefined && /^[a-z0-9._-]*$/.test(name) ? name.replace(/\.$/, '') : undefined;
    });
  }

  /** The bytes of an address, 4 or 16. */
  address(attribute: 'source.ip' | 'remote.ip' | 'destination.ip'): readonly number[] | undefined {
    return this.#once(attribute, () => {
      const { sourceIp, remoteIp, destinationIp } = this.#request.context;
      const text = { 'source.ip': sourceIp, 'remote.ip': remoteIp, 'destination.ip': destinationIp }[
        attribute
      ];
      const bytes = text === undefined ? undefined : parseAddress(text);
      return bytes === undefined ? undefined : canonicalAddress(bytes);
    });
  }

  /** An address as the text that `cidrKey` of each block that holds it begins. */
  addressKey(attribute: 'source.ip' | 'remote.ip' | 'destination.ip'): string | undefined {
    return this.#once(`key of ${attribute}`, () => {
      const bytes = this.address(attribute);
      return bytes === undefined ? undefined : addressKey(bytes);
    });
  }

  /** The lines of a header, without outer spaces. One with other characters than ASCII makes all of them unknown. */
  headerLines(name: string): readonly string[] | undefined {
    if (this.protocol === 'tcp') return undefined;
    return this.#once(`header ${name}`, () => {
      const lines = this.#request.context.headerLines?.(name);
      // Proxies, libraries and applications read such bytes in several ways.
      if (lines === undefined || lines.some((line) => !/^[\t -~]*$/.test(line))) return undefined;
      return lines.map(trimSpaces);
    });
  }

  /** The issuer and subject of the token; null when there is no token, or one without them. */
  get token(): TokenSubject | null | undefined {
    const claims = this.#claims();
    if (claims === null || claims === undefined) return claims;
    const [issuer, subject] = [claims.get('iss'), claims.get('sub')];
    return typeof issuer === 'string' && typeof subject === 'string' ? { issuer, subject } : null;
  }

  /** The texts that a claim has: itself, or those of its list. Nothing else of a token is ever compared. */
  claim(way: readonly string[]): readonly string[] | undefined {
    const claims = this.#claims();
    if (claims === undefined) return undefined;
    // No name has a bracket in it.
    return this.#once(`claim ${way.join('][')}`, () => {
      let found: unknown = claims;
      for (const name of way) found = memberOf(found, name);
      if (typeof found === 'string') {
        const isSpaced = way.length === 1 && spaceDelimited.has(way[0] ?? '');
        return isSpaced ? found.split(' ').filter((part) => part !== '') : [found];
      }
      return Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
    });
  }

  /** What a filter noted under a key. */
  metadata(filter: string, key: string): unknown {
    return this.#request.context.metadata?.get(filter)?.get(key);
  }

  #once<T>(name: string, read: () => T): T {
    const known = (this.#known ??= new Map<string, unknown>());
    if (known.has(name)) return known.get(name) as T;
    const found = read();
    known.set(name, found);
    return found;
  }

  #claims(): ReadonlyMap<string, unknown> | null | undefined {
    return this.protocol === 'tcp' ? undefined : this.#request.context.claims;
  }

  #kubernetes(): ReturnType<typeof kubernetesNames> {
    if (this.#names === null) {
      const { source } = this.#request;
      const own = source !== null && source.memberOf(this.#trustDomain);
      this.#names = own ? kubernetesNames(source) : undefined;
    }
    return this.#names;
  }
}

const schemeLength = 'spiffe://'.length;

/** Istio splits these at spaces before anything is compared. */
const spaceDelimited: ReadonlySet<string> = new Set(['scope', 'permission']);

function memberOf(value: unknown, name: string): unknown {
  if (value instanceof Map) return value.get(name);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, name) ? (value as Readonly<Record<string, unknown>>)[name] : undefined;
}

/** The attributes with one text or number, by which rules are filed. */
export const singleFacts = {
  'source.principal': (facts: Facts) => facts.principal,
  'source.namespace': (facts: Facts) => facts.namespace,
  'source.serviceAccount': (facts: Facts) => facts.serviceAccount,
  'source.trustDomain': (facts: Facts) => facts.trustDomain,
  'request.host': (facts: Facts) => facts.host,
  'request.method': (facts: Facts) => facts.method,
  'request.path': (facts: Facts) => facts.path,
  'destination.port': (facts: Facts) => facts.port,
  'connection.sni': (facts: Facts) => facts.sni,
} as const satisfies Partial<Record<Attribute, (facts: Facts) => string | number | undefined>>;

export type SingleAttribute = keyof typeof singleFacts;

export function isSingle(attribute: Attribute): attribute is SingleAttribute {
  return Object.hasOwn(singleFacts, attribute);
}
