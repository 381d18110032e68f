import { isInCidr, parseAddress, parseCidr } from './cidr.ts';
import type { Attribute, Condition } from './document.ts';
import { trimSpaces } from './header-line.ts';
import type { IstioMesh, ProxyRequest } from './istio-request.ts';
import { normalizedPath } from './normalized-path.ts';
import { compileTemplate, isPathTemplate } from './path-template.ts';

/** What the conditions of a policy are read with. */
export type IstioScope = {
  readonly mesh: IstioMesh;
  /** Of the policy: that of a service account which names none. */
  readonly namespace: string;
};

/** A call, and what is worked out of it once. */
export type IstioFacts = {
  readonly request: ProxyRequest;
  /** As Envoy compares it: without query, under the normalization of the mesh. Null when there is none. */
  readonly path: string | null;
  /** The lines of each header without outer spaces, equal ones once: they are the caller's, and each rule looks at them. */
  readonly lines: ReadonlyMap<string, ReadonlySet<string>>;
  /** When the call is judged. */
  readonly nowMs: number;
};

/** Whether a condition holds for a call. */
export type IstioTest = (facts: IstioFacts) => boolean;

/** What of a condition Istio's reading needs. */
export type IstioCondition = Pick<Condition, 'names' | 'values' | 'notValues'> & {
  readonly attribute: Attribute;
};

/** What a call shows where conditions look. */
export function istioFacts({ pathNormalization }: IstioMesh, request: ProxyRequest, now: Date): IstioFacts {
  return {
    request,
    nowMs: now.getTime(),
    lines: headerLines(request),
    path: request.path === null ? null : normalizedPath(request.path, pathNormalization),
  };
}

/**
 * Makes a condition ready as Istio and Envoy 1.40 have it: of `values` one matches, of `notValues` none. What the request
 * lacks matches no value, and so satisfies every `notValues`.
 */
export function compileCondition(condition: IstioCondition, scope: IstioScope): IstioTest {
  const compile = (list: readonly string[]): readonly IstioTest[] =>
    expandAliases(condition.attribute, list, scope.mesh).map((value) =>
      matchers[condition.attribute](value, condition.names, scope),
    );
  const [values, notValues] = [compile(condition.values), compile(condition.notValues)];
  return (facts) =>
    (values.length === 0 || values.some((matches) => matches(facts))) &&
    !notValues.some((matches) => matches(facts));
}

/** The whole names of callers one of which a condition demands; undefined when it may match others too. */
export function demandedNames(
  { attribute, values }: IstioCondition,
  mesh: IstioMesh,
): readonly string[] | undefined {
  if (attribute !== 'source.principal' || values.length === 0) return undefined;
  const expanded = expandAliases(attribute, values, mesh);
  return expanded.some((value) => value.includes('*')) ? undefined : expanded.map((value) => scheme + value);
}

type Matcher = (value: string, names: readonly string[], scope: IstioScope) => IstioTest;

function ofName(matches: (name: string) => boolean): IstioTest {
  return ({ request }) => request.peerNames.some(matches);
}

const matchers: Readonly<Record<Attribute, Matcher>> = {
  'source.principal': (value) => ofName((name) => matchesPrincipal(value, name)),
  'source.namespace': (value) => {
    const pieces = ['/ns/', ...value.split('*'), '/'];
    return ofName((name) => matchesPieces(pieces, name));
  },
  'source.serviceAccount': (value, _, { namespace }) =>
    ofName((name) => matchesServiceAccount(value, namespace, name)),
  'source.trustDomain': (value) => ofName((name) => matchesTrustDomain(value, name)),
  'source.ip': (value) => onAddress(value, ({ sourceIp }) => sourceIp),
  'remote.ip': (value) => onAddress(value, ({ remoteIp }) => remoteIp),
  'request.auth.principal': (value) => (facts) => matchesTokenPrincipal(value, facts.request),
  'request.auth.audiences': (value) => (facts) => matchesClaim(value, ['aud'], facts.request),
  'request.auth.presenter': (value) => (facts) => matchesClaim(value, ['azp'], facts.request),
  'request.auth.claims': (value, names) => (facts) => matchesClaim(value, names, facts.request),
  'request.headers':
    (value, [name = '']) =>
    ({ lines }) => {
      for (const line of lines.get(name) ?? []) if (value === '*' || matchesText(value, line)) return true;
      return false;
    },
  'request.host': (value) => {
    const lower = value.toLowerCase();
    return ({ request: { host } }) =>
      host !== null && (value === '*' || matchesText(lower, host.toLowerCase()));
  },
  'request.method': (value) => (facts) =>
    facts.request.method !== null && (value === '*' || matchesText(value, facts.request.method)),
  'request.path': (value) => {
    const fits = isPathTemplate(value)
      ? compileTemplate(value)
      : (text: string): boolean => matchesText(value, text);
    return ({ path }) => path !== null && fits(path);
  },
  'destination.ip': (value) => onAddress(value, ({ destinationIp }) => destinationIp),
  'destination.port': (value) => {
    const port = Number(value);
    return (facts) => facts.request.destinationPort === port;
  },
  'connection.sni': (value) => (facts) => matchesText(value, facts.request.sni),
  // No word of Istio's language: the bounds of a policy in time hold in either mode.
  time: (value, [bound = '']) => {
    const atMs = Number(value);
    return ({ nowMs }) => (bound === 'notBefore' ? nowMs >= atMs : nowMs < atMs);
  },
  'filter.metadata':
    (value, [filter = '', key = '']) =>
    (facts) =>
      matchesMetadata(value, facts.request.metadata.get(filter)?.get(key)),
};

/** A leading `*` is a suffix match, else a trailing one a prefix match, alone it is present and not empty. */
function matchesText(value: string, text: string): boolean {
  if (value === '*') return text !== '';
  if (value.startsWith('*')) return text.endsWith(value.slice(1));
  return value.endsWith('*') ? text.startsWith(value.slice(0, -1)) : text === value;
}

const scheme = 'spiffe://';

function matchesPrincipal(value: string, name: string): boolean {
  if (value === '*') return name !== '';
  if (!name.startsWith(scheme)) return false;
  return matchesText(value, name.slice(scheme.length));
}

/**
 * Istio compares namespaces with `.*\/ns/V/.*` over the whole name, every `*` of V being `.*`, across slashes too. The
 * pieces between stars stand in the name in their order: the first place of each leaves most room for the next.
 */
function matchesPieces([before = '', first = '', ...rest]: readonly string[], name: string): boolean {
  const pieces = [before + first, ...rest];
  const after = pieces.pop() ?? '';
  pieces.push((pieces.pop() ?? '') + after);
  let at = 0;
  for (const piece of pieces) {
    const found = name.indexOf(piece, at);
    if (found === -1) return false;
    at = found + piece.length;
  }
  return true;
}

/** `spiffe://.+/ns/<ns>/(.+/|)sa/<sa>(/.+)?`; without a namespace it is that of the policy. */
function matchesServiceAccount(value: string, policyNamespace: string, name: string): boolean {
  const slash = value.indexOf('/');
  const namespace = slash === -1 ? policyNamespace : value.slice(0, slash);
  if (!name.startsWith(scheme)) return false;
  const opening = `/ns/${namespace}/`;
  // The trust domain has at least a character. The first place of the namespace leaves most room for the account.
  const at = name.indexOf(opening, scheme.length + 1);
  if (at === -1) return false;
  const rest = name.slice(at + opening.length);
  const closing = `sa/${value.slice(slash + 1)}`;
  for (let sa = rest.indexOf(closing); sa !== -1; sa = rest.indexOf(closing, sa + 1)) {
    // What stands between the two is nothing, or something that ends with a slash.
    if (sa !== 0 && (sa < 2 || rest.charAt(sa - 1) !== '/')) continue;
    const tail = rest.slice(sa + closing.length);
    if (tail === '' || (tail.startsWith('/') && tail.length > 1)) return true;
  }
  return false;
}

function matchesTrustDomain(value: string, name: string): boolean {
  if (!name.startsWith(scheme)) return false;
  if (value === '*') return true;
  const slash = name.indexOf('/', scheme.length);
  if (slash === -1) return false;
  const [before = '', after] = value.split('*');
  const trustDomain = name.slice(scheme.length, slash);
  if (after === undefined) return trustDomain === value;
  const isLongEnough = trustDomain.length >= before.length + after.length;
  return isLongEnough && trustDomain.startsWith(before) && trustDomain.endsWith(after);
}

function onAddress(value: string, read: (request: ProxyRequest) => string | null): IstioTest {
  const block = parseCidr(value);
  return ({ request }) => {
    const address = read(request);
    const bytes = address === null ? undefined : parseAddress(address);
    return block !== undefined && bytes !== undefined && isInCidr(bytes, block);
  };
}

/** The issuer may be a URL, so the last slash divides it from the subject. */
function matchesTokenPrincipal(value: string, { claims }: ProxyRequest): boolean {
  const [issuer, subject] = [claims?.get('iss'), claims?.get('sub')];
  if (typeof issuer !== 'string' || typeof subject !== 'string') return false;
  const any = (text: string): boolean => text !== '';
  const slash = value.lastIndexOf('/');
  const [iss, sub] = slash === -1 ? [value, ''] : [value.slice(0, slash), value.slice(slash + 1)];
  if (value === '*') return any(issuer) && any(subject);
  if (value.startsWith('*')) {
    if (slash === -1) return any(issuer) && subject.endsWith(value.slice(1));
    return (iss === '*' ? any(issuer) : issuer.endsWith(iss.slice(1))) && subject === sub;
  }
  if (value.endsWith('*')) {
    if (slash === -1) return issuer.startsWith(value.slice(0, -1)) && any(subject);
    return issuer === iss && (sub === '*' ? any(subject) : subject.startsWith(sub.slice(0, -1)));
  }
  return issuer === iss && subject === sub;
}

/** A string, or any string of a list; nothing else of a token is ever matched. */
function matchesClaim(value: string, way: readonly string[], { claims }: ProxyRequest): boolean {
  let found: unknown = claims;
  for (const name of way) {
    if (found instanceof Map) found = found.get(name);
    else if (isObject(found) && Object.hasOwn(found, name)) found = found[name];
    else return false;
    // Istio splits these two at spaces before anything is compared. An empty part matches no value.
    if (way.length === 1 && typeof found === 'string' && spaceDelimited.has(name)) found = found.split(' ');
  }
  if (typeof found === 'string') return matchesText(value, found);
  return Array.isArray(found) && found.some((item) => typeof item === 'string' && matchesText(value, item));
}

const spaceDelimited: ReadonlySet<string> = new Set(['scope', 'permission']);

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function headerLines({ headers, host, method, path }: ProxyRequest): IstioFacts['lines'] {
  const lines = new Map<string, Set<string>>();
  for (const [name, value] of headers) {
    const known = lines.get(name);
    if (known === undefined) lines.set(name, new Set([trimSpaces(value)]));
    else known.add(trimSpaces(value));
  }
  const pseudo = [
    [':authority', host],
    ['host', host],
    [':method', method],
    [':path', path],
  ] as const;
  for (const [name, value] of pseudo) lines.set(name, new Set(value === null ? [] : [value]));
  return lines;
}

/** `[v]` looks in a list, `v` at a string. */
function matchesMetadata(value: string, found: unknown): boolean {
  if (!value.startsWith('[') || !value.endsWith(']')) {
    return typeof found === 'string' && matchesText(value, found);
  }
  const inner = value.replace(/^[[\]]+|[[\]]+$/g, '');
  return Array.isArray(found) && found.some((item) => typeof item === 'string' && matchesText(inner, item));
}

/** A value that names a trust domain of the mesh stands for all of them. */
function expandAliases(
  attribute: Attribute,
  values: readonly string[],
  { trustDomains }: IstioMesh,
): readonly string[] {
  if (attribute === 'source.trustDomain') {
    return values.flatMap((value) => (trustDomains.includes(value) ? trustDomains : [value]));
  }
  return attribute === 'source.principal'
    ? values.flatMap((value) => expandPrincipal(value, trustDomains))
    : values;
}

/** Only `<trust domain>/ns/<namespace>/sa/<account>`, by its five parts, has aliases; `cluster.local` is one of every mesh. */
function expandPrincipal(value: string, trustDomains: readonly string[]): readonly string[] {
  const [own = '', ...rest] = value.split('/');
  const isKnown = own === 'cluster.local' || trustDomains.some((name) => matchesText(own, name));
  if (rest.length !== 4 || !isKnown) return [value];
  return trustDomains.map((name) =>
    own.startsWith('*') && name.endsWith(own.slice(1)) ? value : [name, ...rest].join('/'),
  );
}
