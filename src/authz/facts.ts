import { kubernetesNames, type TrustDomain } from '../spiffe/id.ts';
import { Answers } from './answers.ts';
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
  // Thousands of rules may ask for the same: what takes time is worked out once.
  #sni: string | undefined | null = null;
  #token: TokenSubject | null | undefined;
  #headers: Answers<readonly string[] | undefined> | undefined;
  #claimTexts: Answers<readonly string[]> | undefined;
  #addresses: Answers<Address | undefined> | undefined;

  constructor(request: AuthzRequest, trustDomain: TrustDomain, now: Date) {
    this.#request = request;
    this.#trustDomain = trustDomain;
    this.protocol = request.protocol;
    this.nowMs = now.getTime();
    this.principal = request.source?.principal;
    this.host = request.host === '' ? undefined : request.host;
    this.hostPort = request.hostPort;
    this.port = request.port === 0 ? undefined : request.port;
    this.method = request.method === '' ? undefined : request.method;
    this.path = request.path === '' ? undefined : request.path;
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
    if (this.#sni === null) {
      const name = this.#request.context.sni?.toLowerCase();
      if (name === undefined || !dnsName.test(name)) this.#sni = undefined;
      else this.#sni = name.endsWith('.') ? name.slice(0, -1) : name;
    }
    return this.#sni;
  }

  /** The bytes of an address, 4 or 16. */
  address(attribute: AddressAttribute): readonly number[] | undefined {
    return this.#addressOf(attribute)?.bytes;
  }

  /** An address as the text that a `cidrKeys` of each block that holds it begins. */
  addressKey(attribute: AddressAttribute): string | undefined {
    const address = this.#addressOf(attribute);
    if (address === undefined) return undefined;
    address.key ??= addressKey(address.bytes);
    return address.key;
  }

  #addressOf(attribute: AddressAttribute): Address | undefined {
    const known = (this.#addresses ??= new Answers());
    if (known.has(attribute)) return known.last;
    const { sourceIp, remoteIp, destinationIp } = this.#request.context;
    const text = attribute === 'source.ip' ? sourceIp : attribute === 'remote.ip' ? remoteIp : destinationIp;
    const bytes = text === undefined ? undefined : parseAddress(text);
    const address = bytes === undefined ? undefined : { bytes: canonicalAddress(bytes), key: undefined };
    return known.keep(attribute, address);
  }

  /** The lines of a header, without outer spaces. One with other characters than ASCII makes all of them unknown. */
  headerLines(name: string): readonly string[] | undefined {
    if (this.protocol === 'tcp') return undefined;
    const known = (this.#headers ??= new Answers());
    return known.has(name) ? known.last : known.keep(name, readLines(this.#request, name));
  }

  /** The issuer and subject of the token; null when there is no token, or one without them. */
  get token(): TokenSubject | null | undefined {
    const claims = this.#claims();
    if (claims === null || claims === undefined) return claims;
    if (this.#token === undefined) {
      const [issuer, subject] = [claims.get('iss'), claims.get('sub')];
      this.#token = typeof issuer === 'string' && typeof subject === 'string' ? { issuer, subject } : null;
    }
    return this.#token;
  }

  /** The texts that a claim has: itself, or those of its list. Nothing else of a token is ever compared. */
  claim(way: ClaimWay): readonly string[] | undefined {
    const claims = this.#claims();
    if (claims === undefined) return undefined;
    const known = (this.#claimTexts ??= new Answers());
    return known.has(way.id) ? known.last : known.keep(way.id, readClaim(claims, way.names));
  }

  /** What a filter noted under a key. */
  metadata(filter: string, key: string): unknown {
    return this.#request.context.metadata?.get(filter)?.get(key);
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

const dnsName = /^[a-z0-9._-]*$/;

type AddressAttribute = 'source.ip' | 'remote.ip' | 'destination.ip';

type Address = { readonly bytes: readonly number[]; key: string | undefined };

/** The names that lead to a claim, and a text that no other way has. */
export type ClaimWay = { readonly names: readonly string[]; readonly id: string };

/** Makes a way to a claim ready to be asked for. */
export function wayTo(names: readonly string[]): ClaimWay {
  // No name has a bracket in it.
  return { names, id: names.join('][') };
}

function readLines({ context }: AuthzRequest, name: string): readonly string[] | undefined {
  const lines = context.headerLines?.(name);
  // Proxies, libraries and applications read such bytes in several ways.
  if (lines === undefined || !lines.every(isPlain)) return undefined;
  return lines.map(trimSpaces);
}

function isPlain(line: string): boolean {
  return plain.test(line);
}

const plain = /^[\t -~]*$/;

function readClaim(claims: ReadonlyMap<string, unknown> | null, way: readonly string[]): readonly string[] {
  let found: unknown = claims;
  for (const name of way) found = memberOf(found, name);
  if (typeof found === 'string') {
    const isSpaced = way.length === 1 && spaceDelimited.has(way[0] ?? '');
    return isSpaced ? found.split(' ').filter((part) => part !== '') : [found];
  }
  return Array.isArray(found) ? found.filter((one) => typeof one === 'string') : [];
}

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
